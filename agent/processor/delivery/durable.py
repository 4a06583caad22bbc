"""The sink of a trigger whose events outlive the processor: with a journal, with ids, or both.

Flow: trigger -> [durable sink] -> ids (seen before?) -> journal (on the disk, then acknowledged) -> line -> pool.
The handler's success removes the event from the journal and adds its id, in one commit.

Promises
- With a journal `done` gets 202 when the event is on the disk; what the handler makes of it shows in the statistics and
  the dead letters. What has begun is not lost: it stays in the journal until the handler has succeeded.
- With ids `done` of a repeated event gets the outcome of the first one, without running the handler.
- Without room or space, or with a disk that refuses, `full` is true and `dispatch` answers NO_WORKER.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from agent.model.event import NOW, Event, Outcome, Result
from agent.model.sink import Done
from agent.model.spec import TriggerSpec
from agent.processor.delivery.codec import Damaged, decode_reply, encode_event, encode_reply
from agent.processor.delivery.group import Eviction, Group
from agent.processor.delivery.ids import NO_ANSWER, Ids
from agent.processor.delivery.journal import PAGE_BYTES, PAGE_EVENTS, Entry, Journal
from agent.processor.delivery.line import Line
from agent.processor.delivery.pick import id_picker, mark_of
from agent.processor.delivery.store import Kept, Store
from agent.processor.delivery.terms import window_of
from agent.processor.job import Job
from agent.processor.sink import TriggerSink

_MOST_UNWRITTEN_BYTES = 8 << 20
_LOAD_AGAIN_S = 1.0
_NOT_KEPT = b'{"error": "this request was handled before; its answer was too large to keep"}'


class MarkedJob(Job):
    """An event with an id that nobody else may run meanwhile."""

    __slots__ = ("mark",)
    mark: bytes


class JournalJob(Job):
    """An event out of the journal."""

    __slots__ = ("entry",)
    entry: Entry


class DurableSink(TriggerSink):
    """Implements agent.model.sink.Sink. Nothing is taken in before the store is open; what comes waits for that."""

    durable = True

    def __init__(self, spec: TriggerSpec, *arguments: Any, **more: Any) -> None:
        self.journalled = bool(spec.journal)
        super().__init__(spec, *arguments, **more)
        self._keys = spec.journal_keys
        self._window_s = window_of(spec)
        ids = spec.promise == "effectively-once"
        self._id_of = id_picker(spec.id_from, spec.default_id_from) if ids else None
        self._journal: Journal | None = None
        self._ids: Ids | None = None
        self._early: list[tuple[Event, Done, bool]] = []
        self._open = False
        self._waiters: dict[bytes, list[Done] | None] = {}  # marks under way; None: acknowledged, and in the journal
        self._working = 0  # events of the journal that are in memory and not live
        self._pumping = False
        self._trouble = ""
        self._was_up = False  # before the trouble
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_line(self) -> Line | None:
        line = super()._make_line()
        if line is None and self.journalled:
            # What has gone to the pool cannot be mixed any more: few go there at a time.
            least = 2 * self._spec.batch.batch_size * len(self._pool.lanes) if self.batches else 0
            line = Line(self._submit, self._pool.lanes, None, strict=False, least=least)
        return line

    # --- the store ------------------------------------------------------------------------------------------------

    def opened(self, kept: Kept) -> None:
        if self._open:
            if self._journal:
                self._journal.refresh(kept, self._group(), self._delivery.commits.at)
            return
        self._open = True
        if self._id_of:
            self._ids = Ids(self._spec.ids, kept)
        if self.journalled:
            self._journal = Journal(self._keys, kept, self._spec.queue_size)
            self._waiters.update((mark, None) for mark in kept.marks)
            if kept.events:
                self.log.info("events wait in the journal", events=kept.events, bytes=kept.size)
        early, self._early = self._early, []
        for event, done, patient in early:
            self._admit(event, done, patient)
        self._wake()
        self._pump()

    def store_changed(self, trouble: str) -> None:
        statistics = self.statistics
        if trouble:
            self._was_up = statistics.up if not self._trouble else self._was_up
            self.count("store_troubles")
            self.down(trouble)
        elif self._trouble and statistics.why == self._trouble and self._was_up:
            self.up(statistics.address)
        self._trouble = trouble
        self._wake()

    def gauges(self) -> dict[str, Any]:
        if self._journal is None:
            return {}
        return {"journal": {"events": self._journal.events, "bytes": self._journal.bytes}}

    def _group(self) -> Group:
        return self._delivery.commits.group(self._window_s)

    # --- in -------------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        commits = self._delivery.commits
        if not self._open or commits.trouble:
            return True
        if self._journal is None:
            return super().full
        if self._journal.unwritten >= self._spec.queue_size or self._journal.unwritten_bytes >= _MOST_UNWRITTEN_BYTES:
            return True
        return self._keys.when_full == "block" and self._journal.over_by(0) >= 0

    def dispatch(self, event: Event, done: Done) -> None:
        if self._trouble or (self.journalled and self._open and self.full) or len(self._early) >= self._spec.queue_size:
            self.count("refused")
            self._loop.call_soon(done, Outcome(Result.NO_WORKER))
            return
        self._take(event, done, patient=False)

    def deliver(self, event: Event, done: Done) -> None:
        self._take(event, done, patient=True)

    def _take(self, event: Event, done: Done, patient: bool) -> None:
        if event.timestamp_ns == NOW:
            event.timestamp_ns = time.time_ns()
        self._in_flight += 1
        if self._open:
            self._admit(event, done, patient)
        else:
            self._early.append((event, done, patient))

    def _admit(self, event: Event, done: Done, patient: bool) -> None:
        mark = self._mark_of(event)
        if mark is not None and self._is_repeated(mark, done, patient):
            return
        if self._journal is not None:
            self._write(self._journal, event, done, mark)
        else:
            self._run(event, done, mark, patient)

    def _answer(self, done: Done, outcome: Outcome) -> None:
        """The source is told."""
        self._in_flight -= 1
        self._wake()
        done(outcome)

    def _wake(self) -> None:
        if self._waiting:
            self._changed.set()

    # --- ids ------------------------------------------------------------------------------------------------------

    def _mark_of(self, event: Event) -> bytes | None:
        if self._id_of is None:
            return None
        id = self._id_of(event)
        if not id:
            self.count("without_id")
            return None
        return mark_of(self.name, id)

    def _is_repeated(self, mark: bytes, done: Done, patient: bool) -> bool:
        """Known already: then `done` gets, now or later, what the first one got. Else the mark is taken."""
        assert self._ids is not None
        answered = self._ids.finished.get(mark)
        if answered is not None:
            self.count("duplicates")
            if self._journal is None and not patient:
                self._spawn(self._answer_again(done, answered))
            else:
                self._loop.call_soon(self._answer, done, _accepted())
            return True
        if mark not in self._waiters:
            self._waiters[mark] = []
            return False
        self.count("duplicates")
        waiters = self._waiters[mark]
        if waiters is None:
            self._loop.call_soon(self._answer, done, _accepted())
        else:
            waiters.append(done)
        return True

    async def _answer_again(self, done: Done, seq: int) -> None:
        """The reply that was kept."""
        outcome = Outcome(Result.REPLIED, 409, "application/json", [], _NOT_KEPT)
        try:
            record = await self._delivery.commits.call(lambda store: store.answer(seq)) if seq != NO_ANSWER else None
            if record:
                outcome = decode_reply(record)
                outcome.headers.append(("Idempotent-Replayed", "true"))
        except sqlite3.Error:
            outcome = Outcome(Result.NO_WORKER)
        except Damaged:
            pass
        self._answer(done, outcome)

    def _tell_waiters(self, mark: bytes | None, outcome: Outcome) -> None:
        """The mark is free again, or known for good."""
        for done in (self._waiters.pop(mark, None) or ()) if mark is not None else ():
            self._answer(done, outcome)

    # --- without a journal: handled, then remembered, then acknowledged -----------------------------------------------

    def _run(self, event: Event, done: Done, mark: bytes | None, patient: bool) -> None:
        job = MarkedJob(event, done, self, time.monotonic_ns(), patient) if mark else None
        if job is not None and mark:
            job.mark = mark
        plain: Job = job or Job(event, done, self, time.monotonic_ns(), patient)
        plain.retry = patient
        self._send(plain)

    def _send(self, job: Job) -> None:
        if job.patient and self._line is not None:
            self._line.enter(job)
        else:
            self._submit(job)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if isinstance(job, JournalJob):
            self._end_journalled(job, outcome)
        elif not isinstance(job, MarkedJob):
            super()._end(job, outcome)
        elif outcome.ok:
            self._remember(job, outcome)
        else:
            super()._end(job, outcome)
            self._tell_waiters(job.mark, outcome)

    def _remember(self, job: MarkedJob, outcome: Outcome) -> None:
        """The id goes to the disk before the source hears of the success."""
        assert self._ids is not None
        group = self._group()
        answer = None
        if not job.patient:
            record = encode_reply(outcome)
            answer = record if len(record) <= self._spec.ids.max_answer_bytes else None
        self._ids.finish(job.mark, group, self._delivery.commits.at, answer)
        seq = NO_ANSWER if answer is None else self._ids.last_seq
        group.then.append(partial(self._remembered, job, outcome, seq))

    def _remembered(self, job: MarkedJob, outcome: Outcome, seq: int, written: bool) -> None:
        # Not written: the work is done all the same, and saying otherwise would have it done again.
        assert self._ids is not None
        self._ids.know(job.mark, seq)
        super()._end(job, outcome)
        self._tell_waiters(job.mark, outcome)

    # --- with a journal: on the disk, acknowledged, then handled ------------------------------------------------------

    def _write(self, journal: Journal, event: Event, done: Done, mark: bytes | None) -> None:
        record = encode_event(event)
        size = len(record)
        group = self._group()
        over = journal.over_by(size)
        if over > 0 and self._keys.when_full == "drop-newest":
            self.count("journal_dropped_newest")
            self._loop.call_soon(self._answer, done, _accepted())
            self._loop.call_soon(self._tell_waiters, mark, _accepted())
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
        self._answer(done, _accepted())
        if mark is not None:
            self._tell_waiters(mark, _accepted())
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
            self._spawn(self._load(journal))

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

    def _end_journalled(self, job: JournalJob, outcome: Outcome) -> None:
        self._working -= 1
        self._record(job, outcome)
        if outcome.result is not Result.STOPPED:  # else it stays where it is
            self._settle(job.entry, self._group())
        self._wake()
        self._pump()

    def _settle(self, entry: Entry, group: Group) -> None:
        """The event leaves the journal, and its id stays."""
        assert self._journal is not None
        self._journal.remove(entry, group)
        if entry.mark is not None and self._ids is not None:
            self._ids.finish(entry.mark, group, self._delivery.commits.at)
            group.then.append(partial(self._known, entry.mark))

    def _known(self, mark: bytes, written: bool) -> None:
        assert self._ids is not None
        self._ids.know(mark)
        self._waiters.pop(mark, None)

    # --- failure and the end --------------------------------------------------------------------------------------

    def _again_later(self, job: Job) -> None:
        if isinstance(job, JournalJob):
            self._group().attempts[job.entry.seq] = job.attempts
        super()._again_later(job)

    def _bury(self, job: Job, outcome: Outcome) -> None:
        if isinstance(job, JournalJob):
            outcome.attempts = job.attempts
            group = self._delivery.bury(
                self.name, job.event, outcome, _whatever, received_ns=job.event.timestamp_ns, mark=job.entry.mark
            )
            self._working -= 1
            self._record(job, outcome)
            self._settle(job.entry, group)
            self._wake()
            self._pump()
            return
        super()._bury(job, outcome)
        if isinstance(job, MarkedJob) and self._ids is not None:
            group = self._group()
            self._ids.finish(job.mark, group, self._delivery.commits.at)
            group.then.append(partial(self._known, job.mark))

    async def drained(self) -> None:
        """The source has its answers; when the processor stops, the workers have finished too."""
        self._send_batch()
        await self._until(lambda: self._in_flight == 0 and not (self._stopping and self._working))

    def stop_retrying(self) -> None:
        super().stop_retrying()
        if self.journalled and self._line is not None:
            self._stop_line(self._line)  # it is in the journal: no need to hurry it through the workers
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name=f"delivery:{self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _accepted() -> Outcome:
    """On the disk; what comes of it is not known yet."""
    return Outcome(Result.REPLIED, 202)


def _nobody(outcome: Outcome) -> None:
    """The source was answered long ago."""


def _whatever(written: bool) -> None:
    """The journal has it until it is written."""
