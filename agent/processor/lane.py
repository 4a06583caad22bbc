"""A lane: one worker, its channel, and what it has been given, from its start to its end. Its place outlives it.

Flow: pool -> [lane] -> channel -> worker; replies come back through the doorbell.
Promise: every job given to a lane is finished or handed back exactly once, whatever the worker does: a reply finishes
it; over its time it is TIMED_OUT at that moment; when the worker dies, jobs it had begun are finished as WORKER_DIED,
and the others go back to the pool, once it is sure that the worker can no longer begin them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agent.model.event import Outcome, Result
from agent.processor.health import HUNG_GRACE_S
from agent.processor.job import Group, Job
from agent.processor.outbox.published import Published
from agent.processor.watch import NEVER, Watch
from agent.processor.worker import WorkerProcess
from shmem import _channel

if TYPE_CHECKING:
    from agent.processor.pool import Pool

_ROUND = 64  # records drained before other tasks of the loop get a turn
_DEEPEST = 64
_QUEUE_NS = 1_000_000  # a ring holds about this much work, so that a slow handler never holds events others could take
_BATCH_RETRY_S = 0.001  # a batch larger than the ring: the worker makes room as it reads, without ringing
_CLOSED_BELL_S = 0.1  # between the end of the doorbell and that of its process, when all is well
_ABANDON_S = 2.0  # SIGKILL not obeyed: the process sits in the kernel, and will not come back to its own code
Record = tuple[int, int, int, int, str, list[tuple[str, str]], bytes]  # as ProcessorChannel.drain gives it


class Lane:
    """`start` returns once the worker is ready; `until_due` once it should be followed by another; `leave` and `close`
    end it."""

    def __init__(self, pool: Pool, index: int) -> None:
        self.pool = pool
        self.index = index
        self.ready = False
        self.pending: dict[int, Job] = {}  # by record id, in the order given
        self.depth = 1
        self.half_batch = False  # the worker waits for the rest of one: nothing else may be put
        self.last_exit = ""
        self.ended_by = ""  # the limit it ran into, if it was one
        self._worker: WorkerProcess | None = None
        self._channel: _channel.ProcessorChannel | None = None
        self._next_id = 1
        self._due_id = NEVER  # from this record on it is to be recycled
        self._handler_ns = 1e9  # smoothed; unknown handlers count as slow
        self.last_reply_ns = 0
        self._late: set[int] = set()  # ids of events that are over their time: their replies mean nothing
        self._last_line = ""
        self._published: dict[int, Published] = {}  # by record id, of events that are not answered yet
        self._watch = Watch(self)
        self._was_ready = False
        self._leaving = False
        self._ending = False  # the process has ended, not yet all that it left
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._due: asyncio.Future[str] = self._loop.create_future()

    @property
    def pid(self) -> int:
        """Of the worker process; 0 when there is none."""
        return self._worker.pid if self._worker else 0

    @property
    def answered(self) -> bool:
        """It has answered an event."""
        return self.last_reply_ns > 0

    @property
    def hung(self) -> bool:
        """It was ended, or is to be, because an event was over its time."""
        return bool(self._late)

    @property
    def events(self) -> int:
        """How many it has been given."""
        return self._next_id - 1

    async def start(self) -> None:
        """Start the worker and wait until its handler is loaded. Raises FunctionError with its reason, OSError."""
        worker = await WorkerProcess.start(self.pool.launch_of(self.index), self._on_bell, self._on_exit, self._on_line)
        self._worker, self._channel = worker, worker.channel
        self._drain()
        try:
            await self._started
        except asyncio.CancelledError:
            raise
        except Exception:
            self.kill()  # it has said why it cannot start: its exit follows
            await asyncio.shield(self._ended)
            raise

    async def until_due(self) -> str:
        """Returns why another worker should follow, while this one still serves; empty: it has ended."""
        await self._due_or_ended()
        return "" if self._ended.done() else self._due.result()

    async def _due_or_ended(self) -> None:
        either: list[asyncio.Future[Any]] = [self._due, self._ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def ask_again(self, why: str, seconds: float) -> None:
        """It could not be followed: it serves on, and is due once more after so many seconds."""
        self._due = self._loop.create_future()
        self._watch.later("again", seconds, lambda: self.want(why))

    async def leave(self, grace_s: float) -> None:
        """Take nothing new, finish what is given, then end: asked, killed after `grace_s` seconds."""
        self.ready, self._leaving = False, True
        while self.pending and not self._ended.done():
            self._due = self._loop.create_future()  # now: when there may be nothing pending any more
            await self._due_or_ended()
        await self.close(HUNG_GRACE_S if self._late else grace_s)

    async def close(self, grace_s: float) -> None:
        """End the worker: ask, wait `grace_s` seconds, kill its process group, reap. Pending jobs are given back."""
        self.ready = False
        worker = self._worker
        if worker is None:
            if self._ending:
                await asyncio.shield(self._ended)
            return
        if self._was_ready and grace_s > 0:
            worker.channel.put_control(_channel.STOP)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await asyncio.shield(self._ended)
        self.kill()
        await asyncio.shield(self._ended)

    def _on_line(self, line: str) -> None:
        if not self._started.done():
            self._last_line = line
        self.pool.function_log.line(self.index, line)

    # ------------------------------------------------------------------------------------------------ giving

    def give(self, job: Job) -> bool:
        """Put one job into the ring. False when the ring has no room now; a job that can never fit is finished."""
        return self._put(job, 0)

    def give_batch(self, group: Group) -> None:
        """Put a batch: one call of the handler with a list. Only for an idle lane."""
        open_ended = self.half_batch  # a record with MORE was put, and none without it yet
        for position, job in enumerate(group):
            last = position + 1 == len(group)
            if not self._put(job, _channel.BATCH | (0 if last else _channel.MORE)):
                self._batch_later(group[position:])
                return
            open_ended = (open_ended or job.token > 0) and (not last or job.token == 0)
        if open_ended and not self._channel.put_control(_channel.BATCH_END):  # type: ignore[union-attr]
            self._batch_later([])
            return
        self.half_batch = False

    def _batch_later(self, rest: Group) -> None:
        self.half_batch = True
        for job in rest:  # pending without a token: never begun
            job.token = 0
            job.id = self._next_id
            self._next_id += 1
            self.pending[job.id] = job
        self._loop.call_later(_BATCH_RETRY_S, self._go_on_with_batch, rest, self._worker)

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
        except (ValueError, OverflowError, TypeError):  # too large, or a number or text that no record can hold
            return self._refused(job, Result.TOO_LARGE)
        except _channel.NoSpace as error:
            sink.count("no_shared_memory")
            self.pool.log.warning("event refused, shared memory is full", reason=str(error))
            return self._refused(job, Result.NO_WORKER)
        except _channel.RingBroken as error:
            self.replace(f"broken channel: {error}")
            return False
        if not token:
            return False
        self._next_id = id + 1
        job.id = id
        job.token = token
        job.begun_ns = time.monotonic_ns()
        self.pending[id] = job
        if self._watch.timer is None:
            self._watch.arm()
        return True

    def _refused(self, job: Job, result: Result) -> bool:
        job.token = 0
        self._loop.call_soon(job.sink.finish, job, Outcome(result))  # `done` must not be called from inside dispatch
        return True

    # --------------------------------------------------------------------------------------------- replies

    def _on_bell(self) -> None:
        if self._channel is None or self._worker is None:
            return
        if self._channel.awake():
            self._drain()
        else:
            # The end of file comes just before that of its process; from one that lives on no reply will be heard.
            self._worker.stop_listening()
            self._watch.later("bell", _CLOSED_BELL_S, lambda: self.replace("it closed its channel"))

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
        except (_channel.RingBroken, _channel.NoSpace, MemoryError) as error:
            self.replace(f"broken channel: {error}")
        if self.ready:
            self.pool.refill(self)
            if self._next_id >= self._due_id:
                self.want(f"{self.events} events")
        elif self._leaving and not self.pending:
            self.want("idle")

    def _take(self, records: list[Record]) -> None:
        left = iter(records)
        while True:
            try:
                self._take_all(left)
                return
            except Exception as error:
                # A trigger's `done` raised: the records behind it are due all the same, and so is asking to be rung.
                self._loop.call_exception_handler({"message": "a record could not be handled", "exception": error})

    def _take_all(self, records: Iterator[Record]) -> None:
        for kind, id, status, nanoseconds, text, headers, body in records:
            if kind == _channel.REPLY:
                job = self.pending.pop(id, None)
                if job is None:
                    if id not in self._late:
                        self.pool.log.warning("reply to an event this worker does not have", worker=self.index, id=id)
                    continue
                self.last_reply_ns = time.monotonic_ns()
                self._learn(nanoseconds or self.last_reply_ns - job.begun_ns)
                outcome = Outcome(Result.REPLIED, status, text, headers, body, job.logs)
                if self._published and (published := self._published.pop(id, None)) and self.pool.outbox:
                    self.pool.outbox.finish(job, outcome, published)
                else:
                    job.sink.finish(job, outcome)
            elif kind == _channel.LOG:
                self._log(id, status, nanoseconds, text, body)
            elif kind == _channel.PUBLISH:
                self._publish(id, status, text, headers, body)
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

    def _publish(self, id: int, status: int, target: str, attributes: list[tuple[str, str]], body: bytes) -> None:
        """Of an event that is still in hand, or of none."""
        if self.pool.outbox is None or (id and id not in self.pending):
            return
        of = self._published.setdefault(id, Published()) if id else None
        if status == 0:
            self.pool.outbox.published(of, target, attributes, body)
        elif of is not None:
            of.problem = body.decode(errors="replace")

    def _set_ready(self) -> None:
        self.ready = True
        self.depth = max(1, self.pool.in_flight_limit)
        self._was_ready = True
        if not self._started.done():
            self._started.set_result(None)
            self._due_id = self._watch.plan_recycling(self.pool.recycle)

    def _fail(self, reason: str) -> None:
        if not self._started.done():
            self.pool.function_log.line(self.index, reason)
            self._started.set_exception(self.pool.function_error(reason))

    # ---------------------------------------------------------------------------------------- its end

    def want(self, why: str) -> None:
        """Another worker should follow this one."""
        self._due_id = NEVER
        if not self._due.done():
            self._due.set_result(why)

    def head(self) -> Job | None:
        """The job that has waited longest for its answer."""
        return next(iter(self.pending.values()), None)

    def begun(self, job: Job) -> bool:
        """Whether the worker has taken it out of its ring: its handler runs, or ran."""
        return bool(self._channel is not None and job.token and self._channel.begun(job.token))

    def over_time(self, jobs: Group) -> None:
        """These events are over their time: so are the events. Their replies, should they come, mean nothing."""
        self.ready = False
        for job in jobs:
            del self.pending[job.id]
            self._late.add(job.id)
            self._published.pop(job.id, None)
        self._finish(jobs, Result.TIMED_OUT)

    def terminate(self) -> None:
        """SIGTERM to the worker and its process group."""
        if self._worker is not None:
            self._worker.terminate()

    def replace(self, why: str) -> None:
        """It is of no further use: end it now, its place is filled again."""
        self.ready = False
        if self._worker is not None:
            self.pool.log.warning("worker is replaced", worker=self.index, pid=self._worker.pid, reason=why)
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the same."""
        if self._worker is not None:
            self._worker.kill()
            self._watch.later("abandon", _ABANDON_S, self._abandon)

    def _abandon(self) -> None:
        """Killed, and not gone: it hangs in the kernel (a dead network drive), where it can do no more harm."""
        if self._worker is not None:
            self.pool.log.error("a killed worker does not end, going on without it", pid=self._worker.pid)
            self._on_exit(-signal.SIGKILL)

    def _on_exit(self, status: int) -> None:
        """The process has ended: take its last replies, finish what it had begun, give the rest back to the pool."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self.ready = False
        self._watch.close()
        self._last_words()
        self.ended_by = worker.limits.verdict(status) if worker.limits else ""
        over_time = "its event was over its time" if self.hung else ""
        self.last_exit = ", ".join(filter(None, (describe_exit(status), over_time, self.ended_by)))
        self._fail(f"the worker ended with {self.last_exit}" + (f": {self._last_line}" if self._last_line else ""))
        unbegun = self._finish_begun()
        self._channel = None
        self._ending = True
        worker.close(lambda: self._ended.set_result(None))
        self.pool.take_back(unbegun)

    def _last_words(self) -> None:
        """What a worker has published before it ended counts: its replies were given."""
        if self._channel is None:
            return
        try:
            while records := self._channel.drain(_ROUND):
                self._take(records)
        except (_channel.RingBroken, _channel.NoSpace, MemoryError):
            self.pool.log.warning("a worker left its channel broken", worker=self.index)
        self.ready = False  # READY may have been among them

    def _finish(self, jobs: Group, result: Result) -> None:
        for job in jobs:
            try:
                job.sink.finish(job, Outcome(result, logs=job.logs))
            except Exception as error:  # of one trigger's `done`; the others are owed their outcome
                self._loop.call_exception_handler({"message": "an outcome could not be told", "exception": error})

    def _finish_begun(self) -> Group:
        """The jobs that were never begun."""
        jobs, self.pending = list(self.pending.values()), {}
        begun: Group = []
        unbegun: Group = []
        for job in jobs:
            (begun if self.begun(job) else unbegun).append(job)
        self._finish(begun, Result.WORKER_DIED)
        return unbegun


def describe_exit(status: int) -> str:
    """ "exit code 3" or "signal 9 (Killed)"."""
    if status >= 0:
        return f"exit code {status}"
    return f"signal {-status} ({signal.strsignal(-status)})"
