"""The journal of one trigger: events on the disk that are not handled yet, and which of them comes next.

Flow: durable sink -> [journal] -> commits; when an event is durable it is `live`, and `next` gives it out. What does
not fit into memory, and what an earlier process left, is backlog: it stays on the disk until its turn.

Promises
- Memory is bounded: at most `queueSize` live events or LIVE_BYTES of them, and one page of backlog.
- Live events and backlog take turns by `share`; with `share: 0` everything goes in order. What comes out of the
  backlog is marked as late.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import NamedTuple

from agent.model.event import Event
from agent.model.spec import Journal as JournalKeys
from agent.processor.delivery.codec import Damaged, decode_event, encode_event, late_event
from agent.processor.delivery.group import Eviction, Group
from agent.processor.delivery.store import Kept, Row

LIVE_BYTES = 4 << 20
PAGE_EVENTS = 64
PAGE_BYTES = 1 << 20


class Entry(NamedTuple):
    """One event that is due: from the journal, not handled yet."""

    seq: int
    event: Event
    size: int
    mark: bytes | None
    attempts: int
    late: bool


class Journal:
    """Used on the loop. `kept` is what the store held at the start."""

    def __init__(self, keys: JournalKeys, kept: Kept, most_live: int) -> None:
        self.keys = keys
        self.events = kept.events  # not handled yet, wherever they are
        self.bytes = kept.size
        self.unwritten = 0  # of those, not on the disk yet
        self.unwritten_bytes = 0
        self.expired = 0  # since somebody looked
        self.damaged = 0
        self._number = kept.number
        self._next_seq = kept.next_seq
        self._most_live = most_live
        self._live: deque[Entry] = deque()
        self._live_bytes = 0
        self._page: deque[Entry] = deque()  # of the backlog, in memory
        self._in_memory: dict[int, Entry] = {}  # written, and live or in hand: the backlog passes over them
        self._leaving: dict[int, int] = {}  # size by seq, of those whose end is not on the disk yet: over them too
        self._after = kept.first_seq - 1  # the backlog begins behind this
        self._last = kept.next_seq - 1 if kept.events else self._after  # and ends here
        self._credit = 0.0
        self._evicting = False
        self.loading = False

    def refresh(self, kept: Kept, group: Group, at: int) -> None:
        """The database was replaced by what could be read of it. What is in memory is written once more if need be."""
        there = set(kept.seqs)
        self.events = len(there - self._leaving.keys() | self._in_memory.keys()) + self.unwritten
        self.bytes = kept.size + self.unwritten_bytes - sum(self._leaving[seq] for seq in there & self._leaving.keys())
        for seq, entry in self._in_memory.items():
            if seq not in there:
                group.inserts.append((seq, at, entry.mark, encode_event(entry.event)))
                self.bytes += entry.size
        self._next_seq = max(self._next_seq, kept.next_seq)

    # --- in ------------------------------------------------------------------------------------------------------

    def write(self, event: bytes, mark: bytes | None, group: Group, at: int) -> int:
        """Add an event to a group; its number."""
        seq = self._next_seq
        self._next_seq += 1
        self.events += 1
        self.bytes += len(event)
        self.unwritten += 1
        self.unwritten_bytes += len(event)
        group.inserts.append((seq, at, mark, event))
        return seq

    def lost(self, size: int) -> None:
        """An event that was added will never get to the disk."""
        self._is_written(size)
        self.events -= 1
        self.bytes -= size

    def _is_written(self, size: int) -> None:
        self.unwritten -= 1
        self.unwritten_bytes -= size

    def durable(self, seq: int, event: Event, size: int, mark: bytes | None) -> None:
        """It is on the disk: live, or where there is no room, backlog."""
        self._is_written(size)
        full = len(self._live) >= self._most_live or self._live_bytes >= LIVE_BYTES
        if full or (self.keys.share == 0 and self.has_backlog):
            self._last = seq
            return
        entry = self._in_memory[seq] = Entry(seq, event, size, mark, 0, late=False)
        self._live.append(entry)
        self._live_bytes += size

    def over_by(self, size: int) -> int:
        """Bytes by which the journal would be too large with `size` more. While some are being given up: none."""
        return 0 if self._evicting else self.bytes + size - self.keys.max_bytes

    def evict(self, size: int, group: Group) -> Eviction | list[Entry]:
        """Give up the oldest that nobody has in hand, at least `size` bytes: a request to the store, or from memory."""
        if self._backlog_is_oldest:
            self._evicting = True
            # Some more at once, so that the next events find room without another search.
            more = max(size, self.keys.max_bytes // 64)
            eviction = Eviction(self._number, self._after, more, frozenset(self._in_memory) | frozenset(self._leaving))
            group.evictions.append(eviction)
            return eviction
        gone: list[Entry] = []
        for queue in (self._page, self._live):
            while queue and size > 0:
                gone.append(queue.popleft())
                size -= gone[-1].size
                self._live_bytes -= gone[-1].size if queue is self._live else 0
                self.remove(gone[-1], group)
        return gone

    @property
    def _backlog_is_oldest(self) -> bool:
        if self._page or self.loading or self._after >= self._last:
            return False
        return not self._live or self._after < self._live[0].seq

    def evicted(self, eviction: Eviction) -> None:
        """The store has given up events of the backlog."""
        self._evicting = False
        for _, size, _ in eviction.gone:
            self.events -= 1
            self.bytes -= size

    # --- out -----------------------------------------------------------------------------------------------------

    @property
    def has_backlog(self) -> bool:
        """There may be events on the disk only."""
        return bool(self._page) or self._after < self._last

    @property
    def wants_page(self) -> bool:
        """The next page of the backlog is to be loaded now."""
        return not (self.loading or self._evicting or self._page) and self._after < self._last

    @property
    def after(self) -> int:
        """The seq behind which the backlog goes on."""
        return self._after

    def loaded(self, rows: list[Row], group: Group, at: int) -> None:
        """A page of the backlog has arrived. Events that are too old or damaged are removed with the group."""
        self.loading = False
        if not rows:
            self._after = self._last
            return
        self._after = min(rows[-1].seq, self._last)
        for row in rows:
            if row.seq > self._last or row.seq in self._in_memory or row.seq in self._leaving:
                continue
            entry = self._entry(row, at)
            if entry:
                self._in_memory[row.seq] = entry
                self._page.append(entry)
            else:
                self.remove(Entry(row.seq, Event(), len(row.event), None, 0, late=True), group)

    def _entry(self, row: Row, at: int) -> Entry | None:
        if row.at < at - self.keys.max_age:
            self.expired += 1
            return None
        try:
            event = decode_event(row.event)
        except Damaged:
            self.damaged += 1
            return None
        return Entry(row.seq, late_event(event, row.attempts), len(row.event), row.mark, row.attempts, late=True)

    def next(self) -> Entry | None:
        """What is due, live or late by `share`."""
        if self._live and (not self._page or self._turn_of_live()):
            entry = self._live.popleft()
            self._live_bytes -= entry.size
            return entry
        return self._page.popleft() if self._page else None

    def _turn_of_live(self) -> bool:
        if self.keys.share == 0:
            return self._live[0].seq < self._page[0].seq
        self._credit += self.keys.share
        if self._credit >= 1:
            self._credit -= 1
            return True
        return False

    def remove(self, entry: Entry, group: Group) -> None:
        """The event is done with. Until that is on the disk, the backlog must still pass over it."""
        self._in_memory.pop(entry.seq, None)
        self._leaving[entry.seq] = entry.size
        self.events -= 1
        self.bytes -= entry.size
        group.removed.append(entry.seq)
        group.then.append(partial(self._gone, entry.seq))

    def _gone(self, seq: int, written: bool) -> None:
        self._leaving.pop(seq, None)
