"""A lane: one worker, its channel, and what it has been given.

Flow: pool -> [lane] -> channel -> worker; replies come back through the doorbell.
Promise: every job given to a lane is finished or handed back exactly once, whatever the worker does: a reply
finishes it; when the worker dies, jobs it had begun are finished as WORKER_DIED and the others go back to the pool.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from agent.model.event import Outcome, Result
from agent.processor.job import Group, Job
from agent.processor.worker import WorkerProcess
from shmem import _channel

if TYPE_CHECKING:
    from agent.processor.pool import Pool

_ROUND = 64  # records drained before other tasks of the loop get a turn
_DEEPEST = 64
_QUEUE_NS = 1_000_000  # a ring holds about this much work, so that a slow handler never holds events others could take
_BATCH_RETRY_S = 0.001  # a batch larger than the ring: the worker makes room as it reads, without ringing


class Lane:
    """One worker's place. `start` returns once the worker is ready; `close` is the whole of stopping."""

    def __init__(self, pool: Pool, index: int) -> None:
        self.pool = pool
        self.index = index
        self.ready = False
        self.pending: dict[int, Job] = {}  # by record id, in the order given
        self.depth = 1
        self._worker: WorkerProcess | None = None
        self._channel: _channel.ProcessorChannel | None = None
        self._next_id = 1
        self._handler_ns = 1e9  # smoothed; unknown handlers count as slow
        self._last_reply_ns = 0
        self._killed_for: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started: asyncio.Future[None]
        self._ended: asyncio.Future[None]
        self.last_exit = ""
        self._loop = asyncio.get_running_loop()

    @property
    def pid(self) -> int:
        """Of the worker process; 0 when there is none."""
        return self._worker.pid if self._worker else 0

    async def start(self) -> None:
        """Start a worker and wait until its handler is loaded. Raises FunctionError with the worker's reason."""
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._worker = await WorkerProcess.start(
            self.pool.launch_of(self.index), self._on_bell, self._on_exit, self._on_line
        )
        self._channel = self._worker.channel
        self._next_id = 1
        self._drain()
        try:
            await self._started
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._worker:
                self._worker.kill()  # it has said why it cannot start: its exit follows
            await self._ended
            raise

    async def ended(self) -> None:
        """Returns once the worker's process has ended and its jobs are finished or given back."""
        await self._ended

    async def close(self, grace_s: float) -> None:
        """End the worker: ask, wait `grace_s` seconds, kill its process group, reap. Pending jobs are given back."""
        listens, self.ready = self.ready, False
        worker = self._worker
        if worker is None:
            return
        if listens and grace_s > 0:
            worker.channel.put_control(_channel.STOP)
        await worker.stop(grace_s if listens else 0)

    def _on_line(self, line: str) -> None:
        self.pool.function_log.line(self.index, line)

    # ------------------------------------------------------------------------------------------------ giving

    def give(self, job: Job) -> bool:
        """Put one job into the ring. False when the ring has no room now; a job that can never fit is finished."""
        return self._put(job, 0)

    def give_batch(self, group: Group) -> None:
        """Put a batch: one call of the handler with a list. Only for an idle lane."""
        for position, job in enumerate(group):
            flags = _channel.BATCH | (_channel.MORE if position + 1 < len(group) else 0)
            if not self._put(job, flags):
                self._reserve(group[position:])
                self._loop.call_later(_BATCH_RETRY_S, self._go_on_with_batch, group[position:], self._worker)
                return

    def _reserve(self, rest: Group) -> None:
        for job in rest:  # pending without a token: never begun
            job.token = 0
            job.id = self._next_id
            self._next_id += 1
            self.pending[job.id] = job

    def _go_on_with_batch(self, rest: Group, worker: WorkerProcess | None) -> None:
        if worker is not self._worker or worker is None:
            return  # the worker died meanwhile: the pool has them again
        for job in rest:
            del self.pending[job.id]
        self.give_batch(rest)

    def _put(self, job: Job, flags: int) -> bool:
        event = job.event
        sink = job.sink
        if event.json_body:
            flags |= _channel.JSON_BODY
        id = self._next_id
        texts = (
            event.content_type,
            event.method,
            event.path,
            event.url,
            event.topic,
            event.id,
            event.type,
            event.type_version,
            event.version,
            event.source or sink.kind,
            sink.name,
        )
        try:
            token = self._channel.put_event(  # type: ignore[union-attr]
                id,
                flags,
                event.timestamp_ns,
                event.offset,
                event.shard_id,
                event.num_shards,
                texts,
                event.headers,
                event.fields,
                event.body,
            )
        except ValueError:
            sink.finish(job, Outcome(Result.TOO_LARGE))
            return True
        except _channel.NoSpace as error:
            sink.count("no_shared_memory")
            self.pool.log.warning("event refused, shared memory is full", reason=str(error))
            sink.finish(job, Outcome(Result.NO_WORKER))
            return True
        if not token:
            return False
        self._next_id = id + 1
        job.id = id
        job.token = token
        job.begun_ns = time.monotonic_ns()
        self.pending[id] = job
        if self.pool.event_timeout_ns and self._timer is None:
            self._arm()
        return True

    # --------------------------------------------------------------------------------------------- replies

    def _on_bell(self) -> None:
        if self._channel is not None and self._channel.awake():
            self._drain()

    def _drain(self) -> None:
        """Take what the worker has published; called when rung, and again while there is more."""
        channel = self._channel
        if channel is None:
            return
        try:
            records = channel.drain(_ROUND)
            self._take(records)
            if len(records) == _ROUND or not channel.sleep():
                self._loop.call_soon(self._drain)
        except (_channel.RingBroken, _channel.NoSpace) as error:
            self._replace(f"broken channel: {error}")
        if self.ready:
            self.pool.refill(self)

    def _take(self, records: list[tuple[int, int, int, int, str, list[tuple[str, str]], bytes]]) -> None:
        for kind, id, status, nanoseconds, text, headers, body in records:
            if kind == _channel.REPLY:
                job = self.pending.pop(id, None)
                if job is None:
                    self.pool.log.warning("reply to an event this worker does not have", worker=self.index, id=id)
                    continue
                self._last_reply_ns = time.monotonic_ns()
                self._learn(nanoseconds or self._last_reply_ns - job.begun_ns)
                outcome = Outcome(Result.REPLIED, status, text, headers, body, job.logs)
                job.sink.finish(job, outcome)
            elif kind == _channel.LOG:
                self._log(id, status, nanoseconds, text, body)
            elif kind == _channel.READY:
                self._set_ready()
            elif kind == _channel.FAILED:
                self._fail(body.decode(errors="replace"))

    def _learn(self, handler_ns: int) -> None:
        self._handler_ns += (handler_ns - self._handler_ns) / 8
        limit = self.pool.in_flight_limit
        self.depth = limit if limit > 1 else max(1, min(_DEEPEST, int(_QUEUE_NS / (self._handler_ns + 1))))

    def _log(self, id: int, level: int, time_ns: int, message: str, fields: bytes) -> None:
        record = self.pool.function_log.record(self.index, level, time_ns, message, fields)
        job = self.pending.get(id)
        if (
            job is not None
            and job.event.log_level
            and level >= self.pool.function_log.level_number(job.event.log_level)
        ):
            if job.logs is None:
                job.logs = []
            job.logs.append(record)

    def _set_ready(self) -> None:
        self.ready = True
        self.depth = max(1, self.pool.in_flight_limit)
        self._handler_ns = 1e9
        if not self._started.done():
            self._started.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._started.done():
            self._started.set_exception(self.pool.function_error(reason))

    # -------------------------------------------------------------------------------- time-outs and death

    def _head(self) -> Job | None:
        return next(iter(self.pending.values()), None)

    def _arm(self) -> None:
        job = self._head()
        if job is None:
            return
        left_ns = max(job.begun_ns, self._since()) + self.pool.event_timeout_ns - time.monotonic_ns()
        self._timer = self._loop.call_later(max(0.0, left_ns / 1e9), self._look_at_deadline)

    def _since(self) -> int:
        # One at a time: a handler begins when the one before it was answered. Several at once: each for itself.
        return self._last_reply_ns if self.pool.in_flight_limit == 1 else 0

    def _look_at_deadline(self) -> None:
        self._timer = None
        job = self._head()
        if job is None:
            return
        now = time.monotonic_ns()
        if max(job.begun_ns, self._since()) + self.pool.event_timeout_ns > now + 500_000:
            self._arm()
            return
        self._killed_for = job
        self._replace("event timed out")

    def _replace(self, why: str) -> None:
        self.ready = False
        if self._worker is not None:
            self.pool.log.warning("worker is replaced", worker=self.index, pid=self._worker.pid, reason=why)
            self._worker.kill()

    def _on_exit(self, status: int) -> None:
        """The process has ended: take its last replies, finish what it had begun, give the rest back to the pool."""
        self.ready = False
        self.last_exit = describe_exit(status)
        worker, self._worker = self._worker, None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._last_words()
        self._fail(f"the worker ended with {self.last_exit}")
        self._give_back()
        self._channel = None
        if worker is not None:
            worker.close()
        if not self._ended.done():
            self._ended.set_result(None)

    def _last_words(self) -> None:
        """What a worker has published before it ended counts: its replies were given."""
        if self._channel is None:
            return
        try:
            while records := self._channel.drain(_ROUND):
                self._take(records)
        except (_channel.RingBroken, _channel.NoSpace):
            self.pool.log.warning("a worker left its channel broken", worker=self.index)

    def _give_back(self) -> None:
        jobs, self.pending = list(self.pending.values()), {}
        unbegun: Group = []
        for job in jobs:
            if self._channel is None or not job.token or not self._channel.begun(job.token):
                unbegun.append(job)
            elif job is self._killed_for:
                job.sink.finish(job, Outcome(Result.TIMED_OUT, logs=job.logs))
            else:
                job.sink.finish(job, Outcome(Result.WORKER_DIED, logs=job.logs))
        self._killed_for = None
        self.pool.take_back(unbegun)


def describe_exit(status: int) -> str:
    """ "exit code 3" or "signal 9 (Killed)"."""
    if status >= 0:
        return f"exit code {status}"
    return f"signal {-status} ({signal.strsignal(-status)})"
