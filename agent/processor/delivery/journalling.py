"""The sink of a trigger with a journal: on the disk, acknowledged, then handled.

Flow: trigger -> durable sink -> [journalling sink] -> journal -> line -> pool. The handler's success removes the event
from the journal and, where there are ids, adds its id, in one commit.
Promise: `done` gets 202 when the event is on the disk. It stays there until the handler has succeeded or it is among
the dead letters; what the handler makes of it shows in the statistics.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from functools import partial
from typing import Any

from agent.model.event import Event, Outcome, Result
from agent.model.sink import Done
from agent.model.spec import TriggerSpec
from agent.processor.delivery.codec import encode_event
from agent.processor.delivery.durable import DurableSink, accepted
from agent.processor.delivery.group import Eviction, Group
from agent.processor.delivery.journal import PAGE_BYTES, PAGE_EVENTS, Entry, Journal
from agent.processor.delivery.line import Line
from agent.processor.delivery.store import Kept, Store
from agent.processor.job import Job

_MOST_UNWRITTEN_BYTES = 8 << 20
_LOAD_AGAIN_S = 1.0


class JournalJob(Job):
    """An event out of the journal."""

    __slots__ = ("entry",)
    entry: Entry


class JournallingSink(DurableSink):
    """Implements agent.model.sink.Sink."""

    journalled = True

    def __init__(self, spec: TriggerSpec, *arguments: Any, **more: Any) -> None:
        super().__init__(spec, *arguments, **more)
        self._keys = spec.journal_keys
        self._journal: Journal | None = None
        self._working = 0  # events of the journal that are with the line or between two attempts
        self._pumping = False
        self._loading: asyncio.Task[None] | None = None

    def _make_line(self) -> Line | None:
        # What has gone to the pool cannot be mixed any more: few go there at a time, also without an order.
        least = 2 * self._spec.batch.batch_size * len(self._pool.lanes) if self.batches else 0
        return super()._make_line() or Line(self._submit, self._pool.lanes, None, strict=False, least=least)

    def opened(self, kept: Kept) -> None:
        if self._journal:
            self._journal.refresh(kept, self._group(), self._delivery.commits.at)
            return
        self._journal = Journal(self._keys, kept, self._spec.queue_size)
        self._waiters.update((mark, None) for mark in kept.marks)
        if kept.events:
            self.log.info("events wait in the journal", events=kept.events, bytes=kept.size)
        super().opened(kept)
        self._pump()

    def gauges(self) -> dict[str, Any]:
        if self._journal is None:
            return {}
        return {"journal": {"events": self._journal.events, "bytes": self._journal.bytes}}

    @property
    def full(self) -> bool:
        journal = self._journal
        if journal is None or self._delivery.commits.trouble:
            return True
        if journal.unwritten >= self._spec.queue_size or journal.unwritten_bytes >= _MOST_UNWRITTEN_BYTES:
            return True
        return self._keys.when_full == "block" and journal.over_by(0) >= 0

    # --- in -------------------------------------------------------------------------------------------------------

    def _accept(self, event: Event, done: Done, mark: bytes | None, patient: bool) -> None:
        assert self._journal is not None
        self._write(self._journal, event, done, mark)

    def _write(self, journal: Journal, event: Event, done: Done, mark: bytes | None) -> None:
        record = encode_event(event)
        size = len(record)
        group = self._group()
        over = journal.over_by(size)
        if over > 0 and self._keys.when_full == "drop-newest":
            self.count("journal_dropped_newest")
            self._loop.call_soon(self._answer, done, accepted())
            self._loop.call_soon(self._tell_waiters, mark, accepted())
            return
        if over > 0 and self._keys.when_full == "drop-oldest":
            self._evict(journal, over, group)
        seq = journal.write(record, mark, group, self._delivery.commits.at)
        group.then.append(partial(self._written, seq, event, size, mark, done))

    def _written(self, seq: int, event: Event, size: int, mark: bytes | None, done: Done, written: bool) -> None:
        assert self._journal is not None
        if not written:
            self._journal.lost(size)
            self._answer(done, Outcome(Result.STOPPED))
            self._tell_waiters(mark, Outcome(Result.STOPPED))
            if not self._spec.redelivers:
                self.count("journal_lost")
            return
        self._journal.durable(seq, event, size, mark)
        self._answer(done, accepted())
        if mark is not None:
            self._tell_waiters(mark, accepted())
            self._waiters[mark] = None
        self._pump()

    def _evict(self, journal: Journal, size: int, group: Group) -> None:
        gone = journal.evict(size, group)
        if isinstance(gone, Eviction):
            group.then.append(partial(self._evicted, gone))
            return
        self.count("journal_dropped_oldest", len(gone))
        for entry in gone:
            self._waiters.pop(entry.mark or b"", None)

    def _evicted(self, eviction: Eviction, written: bool) -> None:
        assert self._journal is not None
        self._journal.evicted(eviction)
        self.count("journal_dropped_oldest", len(eviction.gone))
        for _, _, mark in eviction.gone:
            self._waiters.pop(mark or b"", None)

    # --- out ------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand over what is due, as long as there is room."""
        journal, line = self._journal, self._line
        if journal is None or line is None or self._pumping or self._stopping:
            return
        self._pumping = True
        while line.has_room and self._working < self._spec.queue_size:
            entry = journal.next()
            if entry is None:
                break
            self._working += 1
            if entry.late:
                self.count("late")
            job = JournalJob(entry.event, _nobody, self, time.monotonic_ns(), True)
            job.entry, job.retry, job.attempts = entry, True, entry.attempts + 1
            line.enter(job)
        self._pumping = False
        if journal.wants_page:
            journal.loading = True
            self._loading = self._spawn(self._load(journal))

    async def _load(self, journal: Journal) -> None:
        after = journal.after

        def read(store: Store) -> Any:
            return store.backlog(after, PAGE_EVENTS, PAGE_BYTES)

        try:
            rows = await self._delivery.commits.call(read)
        except sqlite3.Error as error:
            self.log.warning("the journal cannot be read now", reason=str(error))
            await asyncio.sleep(_LOAD_AGAIN_S)
            journal.loading = False
        else:
            journal.loaded(rows, self._group(), self._delivery.commits.at)
            self._count_lost(journal)
        self._pump()

    def _count_lost(self, journal: Journal) -> None:
        for what, n in (("journal_expired", journal.expired), ("journal_damaged", journal.damaged)):
            if n:
                self.count(what, n)
        journal.expired = journal.damaged = 0

    def _end(self, job: Job, outcome: Outcome) -> None:
        if isinstance(job, JournalJob):
            self._end_journalled(job, outcome, self._group())
        else:
            super()._end(job, outcome)

    def _end_journalled(self, job: JournalJob, outcome: Outcome, group: Group) -> None:
        self._working -= 1
        if outcome.result is not Result.STOPPED:  # else it stays where it is
            self._in_flight += 1  # the source was answered long ago, `_end` only counts
            super()._end(job, outcome)
            self._settle(job.entry, group)
        self._wake()
        self._pump()

    def _settle(self, entry: Entry, group: Group) -> None:
        """The event leaves the journal, and its id stays."""
        assert self._journal is not None
        self._journal.remove(entry, group)
        if entry.mark is not None and self._ids is not None:
            self._ids.finish(entry.mark, group, self._delivery.commits.at)
            group.then.append(partial(self._known, entry.mark))

    # --- failure and the end --------------------------------------------------------------------------------------

    def _again_later(self, job: Job) -> None:
        if isinstance(job, JournalJob):
            self._group().attempts[job.entry.seq] = job.attempts
        super()._again_later(job)

    def _bury(self, job: Job, outcome: Outcome) -> None:
        if not isinstance(job, JournalJob):
            super()._bury(job, outcome)
            return
        outcome.attempts = job.attempts
        received, mark = job.event.timestamp_ns, job.entry.mark
        group = self._delivery.bury(self.name, job.event, outcome, _whatever, received_ns=received, mark=mark)
        self._end_journalled(job, outcome, group)

    async def drained(self) -> None:
        """The source has its answers; when the processor stops, the workers have finished too."""
        self._send_batch()
        await self._until(lambda: self._in_flight == 0 and not (self._stopping and self._working))

    def stop_retrying(self) -> None:
        super().stop_retrying()
        if self._line is not None:
            self._stop_line(self._line)  # it is in the journal: no need to hurry it through the workers
        if self._loading:
            self._loading.cancel()


def _nobody(outcome: Outcome) -> None:
    """The source was answered long ago."""


def _whatever(written: bool) -> None:
    """The journal has it until it is written."""
