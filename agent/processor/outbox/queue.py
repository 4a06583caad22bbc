"""The order in which one target's messages leave.

Two lanes. `backlog`: everything that waited while the target was away, strictly in order, its first part in memory, the
rest on the disk. `live`: what was published since, of keys that have nothing in the backlog: it need not wait behind
hours of others. `share` of what is taken is live while both have something.

Promise: messages of one key leave in the order they were published. So what is live goes back into the backlog when the
target goes away, or when there is more of it than memory is meant for.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import merge
from typing import TYPE_CHECKING

from agent.model.outlet import Parcel

if TYPE_CHECKING:
    from agent.processor.outbox.storage import Page, Stored

PAGE_MESSAGES = 256
PAGE_BYTES = 1 << 20
"""Of each lane in memory, where there is a disk for the rest."""


class Queue:
    """`on_disk`: there is a disk for what memory is not meant for. Knows of nothing but order."""

    def __init__(self, *, on_disk: bool, share: float) -> None:
        self._durable, self._share = on_disk, share
        self._backlog: deque[Parcel] = deque()
        self._live: deque[Parcel] = deque()
        self._backlog_bytes = self._live_bytes = 0
        self._keys: Counter[str] = Counter()  # of the backlog, disk included
        self.beyond: set[int] = set()  # numbers after `after` that are, or were, in memory and may still be on the disk
        self._credit = 0.0
        self.after = 0  # everything up to this number is in memory, or was
        self.newest = 0  # number of the last one that was admitted
        self.stored = 0  # on the disk only
        self.online = False
        self.loading = False

    def restore(self, stored: Stored) -> None:
        """What an earlier process, or a repaired store, holds; memory is empty."""
        self.stored, self._keys = stored.count, stored.keys
        self.newest = max(self.newest, stored.next_number - 1)

    def __len__(self) -> int:
        return len(self._backlog) + len(self._live) + self.stored

    def first(self) -> Parcel | None:
        """The oldest one in memory."""
        heads = [lane[0] for lane in (self._backlog, self._live) if lane]
        return min(heads, key=lambda parcel: parcel.number) if heads else None

    # --- in ----------------------------------------------------------------------------------------------------------

    def admit(self, parcel: Parcel) -> None:
        """The next one of the target; with a disk it is there already."""
        self.newest = parcel.number
        key = parcel.message.order
        if self.online and key not in self._keys:
            if self._has_room(self._live, self._live_bytes):
                self._go_live(parcel)
                return
            self._demote()
        self._append(parcel)

    def _go_live(self, parcel: Parcel) -> None:
        self._live.append(parcel)
        self._live_bytes += parcel.size
        if self.stored or self.loading:
            self.beyond.add(parcel.number)
        else:
            self.after = parcel.number

    def _has_room(self, lane: deque[Parcel], size: int) -> bool:
        return not self._durable or (len(lane) < PAGE_MESSAGES and size < PAGE_BYTES)

    def _append(self, parcel: Parcel) -> None:
        self._keys[parcel.message.order] += 1
        if not self.stored and not self.loading and self._has_room(self._backlog, self._backlog_bytes):
            self._push(parcel)
            self.after = parcel.number
        else:
            self.stored += 1

    def _push(self, parcel: Parcel) -> None:
        self._backlog.append(parcel)
        self._backlog_bytes += parcel.size

    def offline(self) -> None:
        """The target is away."""
        self.online = False
        self._demote()

    def _demote(self) -> None:
        """What is live goes to its place in the backlog: in memory as far as that reaches, else it is on the disk."""
        live, self._live = self._live, deque()
        self._live_bytes = 0
        for parcel in live:
            self._keys[parcel.message.order] += 1
        near = [parcel for parcel in live if parcel.number <= self.after]
        self.stored += len(live) - len(near)
        self.beyond.difference_update(parcel.number for parcel in live)
        self._backlog = deque(merge(self._backlog, near, key=lambda parcel: parcel.number))
        self._backlog_bytes = sum(parcel.size for parcel in self._backlog)

    @property
    def wants_page(self) -> bool:
        """The rest of the backlog has to be read on."""
        return bool(self.stored and not self._backlog and not self.loading)

    def loaded(self, page: Page) -> list[Parcel]:
        """What was read after `after`, as it is on the disk. Returns what is of the backlog."""
        self.loading = False
        fresh = [p for p in page.parcels if p.number <= self.newest and p.number not in self.beyond]
        self.stored -= len(fresh) + len(page.damaged)
        self.after = max(self.after, min(page.end, self.newest))
        self.beyond = {number for number in self.beyond if number > self.after}
        if not page.parcels and not page.damaged:
            self.stored = 0
        for parcel in fresh:
            self._push(parcel)
        return fresh

    def gone(self, number: int) -> None:
        """It is not on the disk any more. A page that is being read may still have it."""
        if not self.loading:
            self.beyond.discard(number)

    # --- out ---------------------------------------------------------------------------------------------------------

    def take(self) -> Parcel | None:
        """The next to leave."""
        if self._backlog and self._live:
            self._credit += self._share
            if self._credit >= 1:
                self._credit -= 1
                return self._pop_live()
        elif self._live:
            return self._pop_live()
        return self.pop_oldest()

    def _pop_live(self) -> Parcel:
        parcel = self._live.popleft()
        self._live_bytes -= parcel.size
        return parcel

    def pop_oldest(self) -> Parcel | None:
        """The first of the backlog that is in memory; of what is live where there is no backlog at all."""
        if not self._backlog:
            return self._pop_live() if self._live and not self.stored else None
        parcel = self._backlog.popleft()
        self._backlog_bytes -= parcel.size
        key = parcel.message.order
        self._keys[key] -= 1
        if self._keys[key] <= 0:
            del self._keys[key]
        return parcel
