"""The sink: one trigger's way into the function. See agent.model.sink for what it promises to a trigger.

Flow: trigger -> [sink] -> line (where an order is kept) -> pool -> lane; the outcome comes back through `finish`.
Events that must outlive the processor go through `agent.processor.delivery.durable`, which builds on this.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model.event import NOW, Event, Outcome, Result
from agent.model.sink import Done
from agent.model.spec import TriggerSpec
from agent.processor.delivery.codec import late_event
from agent.processor.delivery.delivery import Delivery
from agent.processor.delivery.line import Line
from agent.processor.delivery.pick import picker
from agent.processor.job import Group, Job
from agent.processor.pool import Pool
from agent.processor.statistics import TriggerStatistics

if TYPE_CHECKING:
    from loguru import Logger

    from agent.processor.delivery.store import Kept

_MENDABLE = (Result.REPLIED, Result.TIMED_OUT, Result.WORKER_DIED, Result.NO_WORKER, Result.TOO_LARGE)
"""How an attempt can fail so that the event needs another, or a place among the dead letters."""


def sink_class(spec: TriggerSpec) -> type[TriggerSink]:
    """What a trigger with these keys needs."""
    # Imported late: few functions need them, and SQLite with them.
    if spec.journal:
        from agent.processor.delivery.journalling import JournallingSink

        return JournallingSink
    if spec.promise == "effectively-once":
        from agent.processor.delivery.remembering import RememberingSink

        return RememberingSink
    return TriggerSink


class TriggerSink:
    """Implements agent.model.sink.Sink for one trigger over one pool."""

    durable = False
    journalled = False

    def __init__(
        self,
        spec: TriggerSpec,
        kind: str,
        function: str,
        pool: Pool,
        *,
        state_dir: Path,
        listeners: Sequence[socket.socket],
        log: Logger,
        report: Callable[[dict[str, Any]], None],
        delivery: Delivery,
    ) -> None:
        self.name = spec.name
        self.kind = kind
        self.function = function
        self.log = log
        self.state_dir = state_dir
        self.listeners = listeners
        self.batches = spec.batch.enabled
        self.statistics = TriggerStatistics(kind)
        self._spec = spec
        self._pool = pool
        self._report = report
        self._loop = asyncio.get_running_loop()
        self.wait_s = spec.availability_timeout_s
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._released = False
        self._stopping = False
        self._waiting = 0  # tasks in room() or drained()
        self._batch: Group = []
        self._batch_timer: asyncio.TimerHandle | None = None
        self._retries: dict[asyncio.TimerHandle, Job] = {}
        self._delivery = delivery
        self._line = self._make_line()

    def _make_line(self) -> Line | None:
        """Where there is an order to keep: strictly where it was asked for, else as far as it costs nothing."""
        spec = self._spec
        key_of = picker(spec.order_key or (spec.default_order_key if spec.promise != "at-most-once" else "none"))
        if key_of is None or self.batches:
            return None
        alone = len(self._pool.lanes) == 1 and self._pool.in_flight_limit == 1
        return Line(self._submit, self._pool.lanes, key_of, strict=bool(spec.order_key) or not alone)

    # ------------------------------------------------------------------------------------------- handing over

    def dispatch(self, event: Event, done: Done) -> None:
        job = self._begin(event, done, patient=False)
        if self.batches:
            self._collect(job)
        else:
            self._pool.submit([job], self.wait_s)

    def deliver(self, event: Event, done: Done) -> None:
        job = self._begin(event, done, patient=True)
        job.retry = self._spec.promise != "at-most-once"
        if self._line is None:
            self._submit(job)
        else:
            self._line.enter(job)

    def replay(self, event: Event, attempts: int, done: Done) -> None:
        """Handle a dead letter again; it comes back here only with its last outcome."""
        job = self._begin(late_event(event, attempts), done, patient=True)
        job.retry = job.buried = True
        if self._line is None:
            self._submit(job)
        else:
            self._line.enter(job)

    async def send(self, event: Event) -> Outcome:
        await self.room()
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self.deliver(event, lambda result: None if outcome.done() else outcome.set_result(result))
        return await outcome

    def _begin(self, event: Event, done: Done, patient: bool) -> Job:
        if event.timestamp_ns == NOW:
            event.timestamp_ns = time.time_ns()
        self._in_flight += 1
        return Job(event, done, self, time.monotonic_ns(), patient)

    def _submit(self, job: Job) -> None:
        if self.batches:
            self._collect(job)
        else:
            self._pool.submit([job], self.wait_s)

    def _collect(self, job: Job) -> None:
        self._batch.append(job)
        if len(self._batch) >= self._spec.batch.batch_size:
            self._send_batch()
        elif self._batch_timer is None:
            self._batch_timer = self._loop.call_later(self._spec.batch.timeout, self._send_batch)

    def _send_batch(self) -> None:
        if self._batch_timer:
            self._batch_timer.cancel()
            self._batch_timer = None
        group, self._batch = self._batch, []
        if group:
            self._pool.submit(group, self.wait_s)

    def finish(self, job: Job, outcome: Outcome) -> None:
        """One attempt has ended. Called by lanes and pools, once a job."""
        if job.patient:
            self._delivered(job, outcome)
        else:
            self._end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        """The event has ended."""
        statistics = self.statistics
        self._in_flight -= 1
        outcome.attempts = job.attempts
        if outcome.ok:
            statistics.handled += 1
            statistics.last = outcome.body
        else:
            statistics.failed += 1
            statistics.by_result[outcome.result.value] += 1
        statistics.latency.record(time.monotonic_ns() - job.started_ns)
        if self._waiting:
            self._changed.set()
        job.done(outcome)

    # -------------------------------------------------------------------------------------------- back-pressure

    @property
    def full(self) -> bool:
        return self._in_flight >= self._spec.queue_size

    async def room(self) -> None:
        await self._until(lambda: not self.full)

    async def drained(self) -> None:
        self._send_batch()
        await self._until(lambda: self._in_flight == 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._waiting += 1
        try:
            while not condition():
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waiting -= 1

    # -------------------------------------------------------------------------------------------------- retries

    def _delivered(self, job: Job, outcome: Outcome) -> None:
        """An attempt of a delivered event has ended: another one, the dead letters, or the end."""
        line = self._line
        if job.retry and not outcome.ok and outcome.result in _MENDABLE:
            if job.attempts < self._spec.max_attempts and outcome.result is not Result.TOO_LARGE:
                if not self._stopping:
                    self._again_later(job)
                    return
                outcome = Outcome(Result.STOPPED)
            elif self._spec.dead_letters and not job.buried:
                if line is not None:
                    line.left(job)
                self._bury(job, outcome)
                return
        if line is not None:
            line.left(job)
            if outcome.result is Result.STOPPED:
                self._stop_line(line)
        self._end(job, outcome)

    def _again_later(self, job: Job) -> None:
        self.statistics.retried += 1
        delay_s = min(self._spec.retry_delay * 2 ** (job.attempts - 1), self._spec.max_retry_delay)
        job.attempts += 1
        job.logs = None
        if self._line is not None and self._line.failed(job):
            return  # an older one of its key has failed too: it comes after that

        def submit() -> None:
            del self._retries[handle]
            if self._line is None:
                self._submit(job)
            else:
                self._line.again(job)

        handle = self._loop.call_later(delay_s * random.uniform(0.5, 1.0), submit)
        self._retries[handle] = job

    def _bury(self, job: Job, outcome: Outcome) -> None:
        """Out of attempts. The event ends once it is among the dead letters; where that cannot be, as never begun."""

        def then(written: bool) -> None:
            self._end(job, outcome if written else Outcome(Result.STOPPED))
            if not written and not self._spec.redelivers:
                self.count("dead_letters_lost")
                self.log.error("an event is lost: it has failed and the dead letters cannot be written")

        outcome.attempts = job.attempts
        self._delivery.bury(self.name, job.event, outcome, then, received_ns=job.event.timestamp_ns)

    def stop_retrying(self) -> None:
        """The processor leaves. Attempts not yet made end as STOPPED: the source keeps the event for who comes next."""
        self._stopping = True
        retries, self._retries = self._retries, {}
        for handle, job in retries.items():
            handle.cancel()
            self._stopped(job)
        if self._line is not None:
            if retries:
                self._stop_line(self._line)
            self._line.close()

    def _stop_line(self, line: Line) -> None:
        """What waits behind an event that is left to the source must be left to it too."""
        for job in line.empty():
            self._stopped(job)

    def _stopped(self, job: Job) -> None:
        """An event that is not with the pool is left to the source."""
        self._end(job, Outcome(Result.STOPPED))

    # --------------------------------------------------------------------------------------------------- status

    def opened(self, kept: Kept) -> None:
        """The function has a store, and it is open."""

    def store_changed(self, trouble: str) -> None:
        """Only who needs the store for every event minds."""

    def gauges(self) -> dict[str, Any]:
        """What there is now, beside what was counted."""
        return {}

    def count(self, what: str, n: int = 1) -> None:
        self.statistics.counters[what] += n

    def up(self, address: str = "") -> None:
        statistics = self.statistics
        if not statistics.up or statistics.address != address:
            self.log.info("source is up", address=address)
            statistics.up, statistics.address, statistics.why = True, address, ""
            self._report({"event": "serving", "trigger": self.name, "address": address})

    def down(self, why: str) -> None:
        statistics = self.statistics
        if statistics.up or statistics.why != why:
            self.log.warning("source is down", reason=why)
            statistics.up, statistics.why = False, why
            self._report({"event": "down", "trigger": self.name, "why": why})

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._report({"event": "released", "trigger": self.name})
