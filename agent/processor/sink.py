"""The sink: one trigger's way into the function. See agent.model.sink for what it promises to a trigger.

Flow: trigger -> [sink] -> pool -> lane; the outcome comes back through `finish`.
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
from agent.processor.job import Group, Job
from agent.processor.pool import Pool
from agent.processor.statistics import TriggerStatistics

if TYPE_CHECKING:
    from loguru import Logger

_RETRIABLE = (Result.REPLIED, Result.TIMED_OUT, Result.WORKER_DIED, Result.NO_WORKER)


class TriggerSink:
    """Implements agent.model.sink.Sink for one trigger over one pool."""

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
        self._wait_s = spec.availability_timeout_s
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._released = False
        self._stopping = False
        self._waiting = 0  # tasks in room() or drained()
        self._batch: Group = []
        self._batch_timer: asyncio.TimerHandle | None = None
        self._retries: dict[asyncio.TimerHandle, Job] = {}

    # ------------------------------------------------------------------------------------------- handing over

    def dispatch(self, event: Event, done: Done) -> None:
        self._begin(event, done, patient=False)

    def deliver(self, event: Event, done: Done) -> None:
        self._begin(event, done if self._spec.promise == "at-most-once" else _Retry(done), patient=True)

    async def send(self, event: Event) -> Outcome:
        await self.room()
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self.deliver(event, lambda result: None if outcome.done() else outcome.set_result(result))
        return await outcome

    def _begin(self, event: Event, done: Done, patient: bool) -> None:
        if event.timestamp_ns == NOW:
            event.timestamp_ns = time.time_ns()
        job = Job(event, done, self, time.monotonic_ns(), patient)
        self._in_flight += 1
        if self.batches:
            self._collect(job)
        else:
            self._pool.submit([job], self._wait_s)

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
            self._pool.submit(group, self._wait_s)

    def finish(self, job: Job, outcome: Outcome) -> None:
        """One attempt has ended. Called by lanes and pools, once a job."""
        statistics = self.statistics
        if isinstance(job.done, _Retry) and self._retriable(job, outcome):
            if not self._stopping:
                statistics.retried += 1
                self._again_later(job)
                return
            outcome = Outcome(Result.STOPPED)
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

    def _retriable(self, job: Job, outcome: Outcome) -> bool:
        return not outcome.ok and outcome.result in _RETRIABLE and job.attempts < self._spec.max_attempts

    def _again_later(self, job: Job) -> None:
        delay_s = min(self._spec.retry_delay * 2 ** (job.attempts - 1), self._spec.max_retry_delay)
        job.attempts += 1
        job.logs = None

        def submit() -> None:
            del self._retries[handle]
            self._pool.submit([job], self._wait_s)

        handle = self._loop.call_later(delay_s * random.uniform(0.5, 1.0), submit)
        self._retries[handle] = job

    def stop_retrying(self) -> None:
        """The processor leaves. Attempts not yet made end as STOPPED: the source keeps the event for who comes next."""
        self._stopping = True
        retries, self._retries = self._retries, {}
        for handle, job in retries.items():
            handle.cancel()
            self.finish(job, Outcome(Result.STOPPED))

    # --------------------------------------------------------------------------------------------------- status

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


class _Retry:
    """Marks the `done` of an event under at-least-once: attempts that fail are made again."""

    __slots__ = ("_done",)

    def __init__(self, done: Done) -> None:
        self._done = done

    def __call__(self, outcome: Outcome) -> None:
        self._done(outcome)
