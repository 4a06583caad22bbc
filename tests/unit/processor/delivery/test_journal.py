"""The journal of one trigger against a model: nothing lost, nothing twice, whatever the order of disk and workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Event
from agent.model.spec import Duration, IdWindow
from agent.model.spec import Journal as Keys
from agent.processor.delivery.codec import encode_event
from agent.processor.delivery.group import Eviction, Group
from agent.processor.delivery.ids import Ids
from agent.processor.delivery.journal import Entry, Journal
from agent.processor.delivery.schema import connect
from agent.processor.delivery.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "delivery.db", ["t"], connect)
    yield store
    store.close()


class World:
    """Plays loop and thread: groups are committed when `commit` is called, pages loaded when `load` is."""

    def __init__(self, store: Store, keys: Keys, most_live: int = 8) -> None:
        self.store = store
        self.keys = keys
        self.at = 0
        self.journal = Journal(keys, store.contents().triggers["t"], most_live)
        self.group = Group()
        self.committed = Group()
        self.asked: int | None = None
        self.evicted: list[int] = []

    def write(self, number: int) -> None:
        event = Event(body=b"%d" % number)
        record = encode_event(event)
        over = self.journal.over_by(len(record))
        if over > 0:
            gone = self.journal.evict(over, self.group)
            if isinstance(gone, Eviction):
                self.group.then.append(lambda written, gone=gone: self._evicted(gone))
            else:
                self.evicted += [number_of(entry) for entry in gone]
        seq = self.journal.write(record, None, self.group, self.at)
        self.group.then.append(lambda written: self.journal.durable(seq, event, len(record), None))

    def _evicted(self, eviction: Eviction) -> None:
        self.journal.evicted(eviction)
        self.evicted += [seq - (1 << 40) - 1 for seq, _, _ in eviction.gone]

    def commit(self) -> None:
        self.to_disk()
        self.settle()

    def to_disk(self) -> None:
        """The thread has committed; the loop does not know yet."""
        self.settle()
        self.committed, self.group = self.group, Group()
        self.store.commit(self.committed, self.at)

    def settle(self) -> None:
        """The loop learns of it."""
        group, self.committed = self.committed, Group()
        for then in group.then:
            then(True)

    def ask(self) -> None:
        if self.journal.wants_page and self.asked is None:
            self.journal.loading = True
            self.asked = self.journal.after

    def load(self) -> None:
        if self.asked is not None:
            rows = self.store.backlog(self.asked, 5, 1 << 20)
            self.asked = None
            self.journal.loaded(rows, self.group, self.at)

    def finish(self, entry: Entry) -> None:
        self.journal.remove(entry, self.group)


def number_of(entry: Entry) -> int:
    return int(bytes(entry.event.body))


@pytest.mark.parametrize("seed", range(100))
def test_every_event_comes_out_once_whatever_happens_in_between(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    world = World(store, Keys(share=chance.choice([0, 0.3, 0.5, 1.0])), most_live=chance.choice([1, 4, 1000]))
    out: list[int] = []
    hand: list[Entry] = []
    written = 0
    for _ in range(100_000):
        action = chance.random()
        if action < 0.35 and written < 150:
            world.write(written)
            written += 1
        elif action < 0.45:
            world.to_disk()
        elif action < 0.55:
            world.settle()
        elif action < 0.6:
            world.ask()
        elif action < 0.65:
            world.load()
        elif action < 0.85 and (entry := world.journal.next()):
            out.append(number_of(entry))
            hand.append(entry)
        elif hand:
            world.finish(hand.pop(chance.randrange(len(hand))))
        if written == 150 and not world.journal.events and not hand:
            break
    world.commit()
    assert sorted(out) == list(range(150))
    assert (world.journal.events, world.journal.bytes, world.journal.unwritten) == (0, 0, 0)
    if world.keys.share == 0:
        assert out == sorted(out)
    assert world.store.contents().triggers["t"].events == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_full_journal_drops_the_oldest_and_the_sums_stay_right(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    world = World(store, _tiny(), most_live=chance.choice([2, 1000]))
    out: list[int] = []
    hand: list[Entry] = []
    for number in range(300):
        world.write(number)
        for _ in range(chance.randrange(3)):
            chance.choice([world.commit, world.ask, world.load])()
        if chance.random() < 0.2 and (entry := world.journal.next()):
            out.append(number_of(entry))
            hand.append(entry)
        if hand and chance.random() < 0.5:
            world.finish(hand.pop())
    for _ in range(200):
        world.commit()
        world.ask()
        world.load()
        while entry := world.journal.next():
            out.append(number_of(entry))
            hand.append(entry)
        while hand:
            world.finish(hand.pop())
    assert sorted(out + world.evicted) == list(range(300))
    assert (world.journal.events, world.journal.bytes) == (0, 0)


def _tiny() -> Any:
    """Bounds a specification would not allow."""

    class Tiny:
        share, max_age, max_bytes = 0.5, Duration(1e9), 700

    return Tiny()


def test_what_is_too_old_is_removed_and_counted(store: Store) -> None:
    world = World(store, Keys(max_age=Duration(100)))
    for number in range(3):
        world.write(number)
        world.at += 60
    world.commit()
    later = World(store, Keys(max_age=Duration(100)))
    later.at = world.at
    later.ask()
    later.load()
    assert number_of(later.journal.next() or pytest.fail("nothing")) == 2
    assert later.journal.expired == 2
    later.commit()
    assert later.store.contents().triggers["t"].events == 1


def test_attempts_outlive_the_process(store: Store) -> None:
    world = World(store, Keys())
    world.write(0)
    world.commit()
    entry = world.journal.next()
    assert entry is not None
    world.group.attempts[entry.seq] = 3
    world.commit()
    later = World(store, Keys())
    later.ask()
    later.load()
    again = later.journal.next()
    assert again is not None
    assert (again.attempts, again.late) == (3, True)
    assert ("X-Headrace-Attempts", "3") in again.event.headers


def test_space_is_given_back(store: Store, tmp_path: Path) -> None:
    group = Group(inserts=[((1 << 40) + n, 0, None, encode_event(Event(body=bytes(4000)))) for n in range(2000)])
    store.commit(group, 0)
    store.commit(Group(removed=[(1 << 40) + n for n in range(2000)]), 0)
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "delivery.db").stat().st_size < 1_500_000


def test_ids_are_forgotten_by_count_and_age_and_kept_over_a_restart(store: Store) -> None:
    window = IdWindow(max_count=10, max_age=Duration(100))
    kept = store.contents().triggers["t"]
    ids = Ids(window, kept)
    for number in range(30):
        group = Group()
        ids.finish(b"%016d" % number, group, number)
        ids.know(b"%016d" % number)
        store.commit(group, number)
    assert set(ids.finished) == {b"%016d" % number for number in range(20, 30)}
    again = Ids(window, store.contents().triggers["t"])
    assert set(again.finished) == set(ids.finished)
    group = Group()
    again.finish(b"%016d" % 30, group, 125)
    again.know(b"%016d" % 30)
    assert set(again.finished) == {b"%016d" % number for number in range(25, 31)}


def test_marks_of_one_commit_share_a_row(store: Store) -> None:
    ids = Ids(IdWindow(), store.contents().triggers["t"])
    group = Group()
    for number in range(100):
        ids.finish(b"%016d" % number, group, 0)
    assert len(group.chunks) == 1
    store.commit(group, 0)
    assert len(Ids(IdWindow(), store.contents().triggers["t"]).finished) == 100
