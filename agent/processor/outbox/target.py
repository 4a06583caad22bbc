"""One target of the outbox: its bounds, its state, and what its binding takes from it.

Flow: outbox -> [target] -> binding -> broker; what the broker has confirmed leaves the disk.

Promises
- Nothing is removed before the receiver has confirmed it, but for what a bound drops: that is counted by its reason.
- Numbers grow by one from message to message and are never used again: the receiver sees a gap where one was dropped.
- Nothing here runs while there is nothing to do; the one timer is due when the oldest message is too old.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.model.outlet import Message, Parcel
from agent.model.spec import Outbox as OutboxSpec
from agent.processor.outbox.disk import Disk
from agent.processor.outbox.queue import PAGE_BYTES, PAGE_MESSAGES, Queue

if TYPE_CHECKING:
    from loguru import Logger

    from agent.processor.outbox.storage import Stored

_AGAIN = 64  # of those found at the start, so many may have been sent already
_OVERHEAD = 64  # bytes that a message takes beside what it says
_LOAD_AGAIN_S = 1.0


class Target:
    """Implements agent.model.outlet.Outlet. `disk` None: in memory only. `changed`: there is more room."""

    def __init__(
        self, name: str, function: str, spec: OutboxSpec, disk: Disk | None, log: Logger, changed: Callable[[], None]
    ) -> None:
        self.name, self.function, self.log = name, function, log
        self.durable = disk is not None
        self.bytes = 0  # of everything that is not confirmed, in flight and unwritten included
        self.count = 0
        self.sent = 0
        self.dropped: Counter[str] = Counter()
        self.wanted = asyncio.Event()  # there is something to deliver, or has been
        self._spec, self._disk, self._changed = spec, disk, changed
        self._loop = asyncio.get_running_loop()
        self._queue = Queue(on_disk=self.durable, share=spec.share)
        self._number = 0  # of the target, on the disk
        self._next = 1
        self._again_until = 0
        self._in_flight: dict[int, Parcel] = {}
        self._ready: Callable[[], None] = _nothing
        self._why = "not started"
        self.is_up = False
        self._address = ""
        self._historical = 0
        self._first_at = 0  # of what is on the disk, as found at the start
        self._unwritten = 0
        self._owing = False  # there is more than there should be, until the oldest are in memory
        self._aging: asyncio.TimerHandle | None = None
        self._loads: set[asyncio.Task[None]] = set()

    # --- the store ---------------------------------------------------------------------------------------------------

    @property
    def at(self) -> int:
        return self._disk.at if self._disk else int(self._loop.time())

    def opened(self, stored: Stored) -> None:
        """What an earlier process left."""
        self._number, self._next = stored.target, stored.next_number
        self._queue.restore(stored)
        self.count, self.bytes, self._first_at = stored.count, stored.size, stored.first_at
        if stored.count:
            self.log.info("messages wait in the outbox", target=self.name, messages=stored.count, bytes=stored.size)
            self._again_until = stored.next_number
            self.wanted.set()
            self._load()

    def _load(self) -> None:
        if self._disk and self._queue.wants_page:
            self._queue.loading = True
            task = self._loop.create_task(self._read_page(self._disk), name=f"outbox:load:{self.name}")
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)

    async def _read_page(self, disk: Disk) -> None:
        import sqlite3  # late: nothing is on the disk where nobody publishes

        try:
            page = await disk.page(self._number, self._queue.after, PAGE_MESSAGES, PAGE_BYTES)
        except sqlite3.Error as error:
            self.log.warning("the outbox cannot be read now", target=self.name, reason=str(error))
            await asyncio.sleep(_LOAD_AGAIN_S)
            self._queue.loading = False
            self._load()
            return
        for number in page.damaged:
            self._drop(Parcel(number, 0, Message("", b""), 0), "damaged")
        for index, parcel in enumerate(self._queue.loaded(page)):
            parcel.again = parcel.number < self._again_until and index < _AGAIN
        self._again_until = 0
        self._settle_debt()
        self._expire()
        self._load()
        self._ready()

    # --- in ----------------------------------------------------------------------------------------------------------

    def size_of(self, message: Message) -> int:
        """What it counts for."""
        headers = sum(len(name) + len(value) for name, value in message.headers)
        return len(message.body) + len(message.topic.encode()) + headers + _OVERHEAD

    def has_room(self, size: int) -> bool:
        return self.bytes + size <= self._spec.max_bytes

    def make_room(self, size: int, reason: str = "oldest") -> bool:
        """Give up the oldest until `size` bytes more fit, or (any other reason) until so many were freed."""
        freed = 0
        while not self.has_room(size) if reason == "oldest" else freed < size:
            parcel = self._queue.pop_oldest()
            if parcel is None:
                self._load()
                # The oldest are being read from the disk, or written to it, and then given up.
                self._owing = reason == "oldest" and (self._queue.stored > 0 or self._unwritten > 0)
                return self._owing
            freed += parcel.size
            self._drop(parcel, reason)
        self._load()
        return True

    def _settle_debt(self) -> None:
        if self._owing:
            self._owing = False
            self.make_room(0)

    def parcel(self, message: Message, size: int) -> tuple[int, Parcel]:
        """The message with its number; it counts from now on. The target's own number beside it."""
        parcel = Parcel(self._next, self.at, message, size)
        self._next += 1
        self._unwritten += 1
        self.count += 1
        self.bytes += size
        return self._number, parcel

    def admit(self, parcel: Parcel) -> None:
        """It is stored: it may be sent."""
        self._unwritten -= 1
        self._queue.admit(parcel)
        self._settle_debt()
        self.wanted.set()
        self._age()

    def forget(self, parcel: Parcel) -> None:
        """It was never stored."""
        self._unwritten -= 1
        self._uncount(parcel)

    def _uncount(self, parcel: Parcel) -> None:
        self.count -= 1
        self.bytes -= parcel.size

    # --- age ---------------------------------------------------------------------------------------------------------

    def _age(self) -> None:
        """Be there when the oldest gets too old."""
        first = self._queue.first()
        if self._aging is None and first is not None:
            due_s = max(1.0, first.at + self._spec.max_age - self.at)
            self._aging = self._loop.call_later(due_s, self._aged)

    def _aged(self) -> None:
        self._aging = None
        self._expire()
        self._load()

    def _expire(self) -> None:
        while (first := self._queue.first()) is not None and self._too_old(first):
            parcel = self._queue.pop_oldest()
            if parcel is None:
                break
            self._drop(parcel, "age")
        self._age()
        self._changed()

    def _too_old(self, parcel: Parcel) -> bool:
        return not parcel.again and self.at - parcel.at > self._spec.max_age

    def _drop(self, parcel: Parcel, reason: str) -> None:
        if not self.dropped[reason]:
            self.log.warning(
                "a message is dropped from the outbox; later ones are counted", target=self.name, why=reason
            )
        self.dropped[reason] += 1
        self._uncount(parcel)
        self._remove(parcel)

    def _remove(self, parcel: Parcel) -> None:
        if self._disk:
            beyond = parcel.number in self._queue.beyond
            then = (lambda written: self._queue.gone(parcel.number)) if beyond else None
            self._disk.remove(self._number, parcel, then)

    # --- out: what the binding calls ---------------------------------------------------------------------------------

    def attach(self, ready: Callable[[], None]) -> None:
        self._ready = ready

    def ready(self) -> None:
        """There may be something to take."""
        self._ready()

    def take(self) -> Parcel | None:
        while True:
            parcel = self._queue.take()
            self._load()
            if parcel is None:
                return None
            if not self._too_old(parcel):
                break
            self._drop(parcel, "age")
        parcel.waited_s = max(0, self.at - parcel.at)
        parcel.historical = parcel.waited_s > self._spec.historical_after
        parcel.marks = [("X-Headrace-Seq", str(parcel.number))]
        if parcel.historical:
            self._historical += 1
            parcel.marks += [("X-Headrace-Historical", "true"), ("X-Headrace-Age", str(parcel.waited_s))]
        self._in_flight[parcel.number] = parcel
        return parcel

    def confirmed(self, parcel: Parcel) -> None:
        self._in_flight.pop(parcel.number, None)
        self.sent += 1
        self._uncount(parcel)
        self._remove(parcel)
        self._changed()

    def hand_over(self, parcel: Parcel, then: Callable[[], None]) -> None:
        parcel.released = True
        if self._disk:
            self._disk.release(self._number, parcel, then)
        else:
            then()

    def refused(self, parcel: Parcel, reason: str) -> None:
        self._in_flight.pop(parcel.number, None)
        self._drop(parcel, reason)
        self._changed()

    def up(self, address: str) -> None:
        self.log.info("outbox is connected", target=self.name, address=address, waiting=self.count)
        self.is_up, self._address, self._why = True, address, ""
        self._queue.online = True
        self._ready()

    def down(self, why: str) -> None:
        if self.is_up or why != self._why:
            self.log.warning("outbox is not connected", target=self.name, reason=why, waiting=self.count)
        self.is_up, self._why = False, why
        self._queue.offline()

    # --- status and end ----------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """For the processor's statistics. `oldest_s`: seconds the oldest message has waited."""
        known = [parcel.at for parcel in self._in_flight.values()]
        first = self._queue.first()
        known += [first.at] if first else []
        oldest = min(known, default=self._first_at if self.count else 0)
        return {
            "queued": self.count,
            "bytes": self.bytes,
            "in_flight": len(self._in_flight),
            "sent": self.sent,
            "historical": self._historical,
            "dropped": dict(self.dropped),
            "oldest_s": max(0, self.at - oldest) if self.count and oldest else 0,
            "up": self.is_up,
            "address": self._address,
            "why": self._why,
        }

    def close(self) -> None:
        if self._aging:
            self._aging.cancel()
        for task in self._loads:
            task.cancel()


def _nothing() -> None:
    """Nobody delivers yet."""
