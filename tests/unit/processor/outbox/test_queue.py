"""The order of the outbox against a model of its disk: nothing lost or doubled, order kept per key, memory bounded."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from agent.model.outlet import Message, Parcel
from agent.processor.outbox import queue as queue_module
from agent.processor.outbox.queue import Queue
from agent.processor.outbox.storage import Page


class Model:
    """A queue, its disk, and what has left it."""

    def __init__(self, *, on_disk: bool, share: float = 0.5) -> None:
        self.queue = Queue(on_disk=on_disk, share=share)
        self.disk: dict[int, Parcel] = {}
        self.taken: list[Parcel] = []
        self.removing: list[Parcel] = []  # confirmed, and still on the disk
        self.published = 0
        self.page: Page | None = None  # read, and not told yet

    def publish(self, key: str, size: int = 100) -> None:
        self.published += 1
        parcel = Parcel(self.published, 0, Message(key, b"", key=key), size)
        self.disk[parcel.number] = parcel
        self.queue.admit(parcel)

    def read(self, limit: int = 5) -> None:
        if not self.queue.wants_page:
            return
        self.queue.loading = True
        rows = sorted(number for number in self.disk if number > self.queue.after)[:limit]
        fresh = [Parcel(n, 0, self.disk[n].message, self.disk[n].size) for n in rows]
        self.page = Page(fresh, rows[-1] if rows else self.queue.after)

    def told(self) -> None:
        if self.page is not None:
            self.queue.loaded(self.page)
            self.page = None

    def take(self) -> bool:
        parcel = self.queue.take()
        if parcel is not None:
            self.taken.append(parcel)
            self.removing.append(parcel)
        return parcel is not None

    def removed(self) -> None:
        """The confirmed ones leave the disk."""
        for parcel in self.removing:
            del self.disk[parcel.number]
            self.queue.gone(parcel.number)
        self.removing.clear()

    def drain(self) -> None:
        self.queue.online = True
        while self.take() or self.page or self.queue.wants_page:
            self.told()
            self.read()
        self.removed()

    def check(self) -> None:
        numbers = [parcel.number for parcel in self.taken]
        assert len(numbers) == len(set(numbers)), "sent twice"
        by_key: dict[str, list[int]] = defaultdict(list)
        for parcel in self.taken:
            by_key[parcel.message.order].append(parcel.number)
        assert all(numbers == sorted(numbers) for numbers in by_key.values()), "order lost"


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_any_course_of_events(monkeypatch: pytest.MonkeyPatch, seed: int, on_disk: bool) -> None:
    monkeypatch.setattr(queue_module, "PAGE_MESSAGES", 8)
    chance = random.Random(seed)
    model = Model(on_disk=on_disk, share=chance.choice([0, 0.3, 0.5, 1]))
    for _ in range(600):
        match chance.choice("ppppttttrdxuo"):
            case "p":
                model.publish(chance.choice("abcdefgh"))
            case "t":
                if model.queue.online:
                    model.take()
            case "r":
                if on_disk and model.page is None:
                    model.read(chance.randrange(1, 9))
            case "d":
                model.told()
            case "x":
                model.removed()
            case "u":
                model.queue.online = True
            case "o":
                model.queue.offline()
        if on_disk:
            assert len(model.queue) - model.queue.stored <= 3 * 8 + 8
        assert len(model.queue) == model.published - len(model.taken)
    model.told()
    model.drain()
    model.check()
    assert len(model.taken) == model.published
    assert len(model.queue) == 0 and not model.disk


def test_fresh_messages_of_other_keys_do_not_wait_behind_the_backlog() -> None:
    model = Model(on_disk=True)
    for _ in range(100):
        model.publish("old")
    model.queue.online = True
    for _ in range(20):
        model.publish("new")
    model.publish("old")
    for _ in range(40):
        model.take()
    keys = [parcel.message.order for parcel in model.taken]
    assert keys.count("new") == 20
    assert keys[1] == "new"
    model.drain()
    model.check()


def test_with_share_0_all_keep_their_order() -> None:
    model = Model(on_disk=True, share=0)
    for _ in range(10):
        model.publish("old")
    model.queue.online = True
    model.publish("new")
    model.drain()
    assert [parcel.number for parcel in model.taken] == list(range(1, 12))


def test_the_oldest_are_given_up_first() -> None:
    model = Model(on_disk=False)
    for _ in range(3):
        model.publish("a")
    first = model.queue.pop_oldest()
    assert first is not None and first.number == 1
    assert model.queue.first() is not None and len(model.queue) == 2
