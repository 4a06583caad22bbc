"""A pool: the workers that one or more triggers share, and the bounded queue in front of them.

Flow: sink -> [pool] -> lane -> channel -> worker.
Promise: an event goes to an idle worker first; when all are busy it may queue in a ring about a millisecond of work
deep; behind that it waits here, in order. A worker that dies is replaced, waiting longer each time it dies young.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from agent.model.errors import FunctionError
from agent.model.event import Outcome, Result
from agent.processor.function_log import FunctionLog
from agent.processor.job import Group
from agent.processor.lane import Lane
from agent.processor.worker import WorkerLaunch

if TYPE_CHECKING:
    from loguru import Logger

_STABLE_S = 10.0  # a worker that lived this long has earned an immediate restart
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 10.0


class Pool:
    """Workers of one allocator. Use `async with pool.open()`: inside it all workers have been ready once."""

    def __init__(
        self,
        name: str,
        launches: Sequence[Callable[[], WorkerLaunch]],
        *,
        in_flight_limit: int,
        event_timeout_s: float,
        queue_size: int,
        function_log: FunctionLog,
        log: Logger,
    ) -> None:
        self.name = name
        self.in_flight_limit = in_flight_limit
        self.event_timeout_ns = int(event_timeout_s * 1e9)
        self.function_log = function_log
        self.log = log
        self.restarts = 0
        self._launches = launches
        self._queue_size = queue_size
        self._queue: deque[Group] = deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._first: list[asyncio.Future[None]] = [self._loop.create_future() for _ in launches]
        self.lanes = [Lane(self, index) for index in range(len(launches))]

    def launch_of(self, index: int) -> WorkerLaunch:
        """How worker number `index` is started."""
        return self._launches[index]()

    @staticmethod
    def function_error(reason: str) -> FunctionError:
        """The error for a worker that could not start."""
        return FunctionError(f"the function cannot start: {reason}")

    @contextlib.asynccontextmanager
    async def open(self, grace_s: float) -> AsyncIterator[Pool]:
        """Start the workers and keep them alive; at the end ask them to stop, wait `grace_s` seconds, kill them."""
        async with asyncio.TaskGroup() as keepers:
            tasks = [
                keepers.create_task(self._keep(lane, first), name=f"lane:{self.name}:{lane.index}")
                for lane, first in zip(self.lanes, self._first, strict=True)
            ]
            try:
                yield self
            finally:
                self._closing = True
                self._refuse_queue()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*(lane.close(grace_s) for lane in self.lanes))

    async def ready(self, within_s: float) -> None:
        """Returns once every worker has been ready. FunctionError when one cannot start or is not ready in time."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*self._first)
        except TimeoutError:
            raise FunctionError(
                f"Function wasn't ready in time: {within_s:g} s",
                fix="look at init_context and at module level of the handler, or raise readinessTimeoutSeconds",
            ) from None

    async def _keep(self, lane: Lane, first: asyncio.Future[None]) -> None:
        delay_s = 0.0
        while True:
            started = self._loop.time()
            try:
                await lane.start()
                if not first.done():
                    first.set_result(None)
                self.refill(lane)
                await lane.ended()
            except (FunctionError, OSError) as error:
                if not first.done():
                    first.set_exception(error if isinstance(error, FunctionError) else self.function_error(str(error)))
                    return
                self.log.error("worker cannot start", worker=lane.index, reason=str(error))
            self.restarts += 1
            young = self._loop.time() - started < _STABLE_S
            # The first death is answered at once; only a second young one waits.
            delay_s = min(max(_FIRST_DELAY_S, delay_s * 2), _LONGEST_DELAY_S) if young else 0.0
            pause_s = 0.0 if delay_s <= _FIRST_DELAY_S else delay_s * random.uniform(0.5, 1.0)
            self.log.warning("worker ended", worker=lane.index, how=lane.last_exit, again_in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)

    # ---------------------------------------------------------------------------------------------- dispatch

    @property
    def full(self) -> bool:
        """The queue in front of the workers is at its bound."""
        return self._queued >= self._queue_size

    def submit(self, group: Group, wait_s: float) -> None:
        """Give the group to a worker, or let it wait: patient jobs as long as it takes, others `wait_s` seconds."""
        if not self._queue:
            lane = self._lane_for(len(group))
            if lane is not None and self._give(lane, group):
                return
        if self._closing:
            self._refuse(group, Result.STOPPED)
            return
        if not group[0].patient and (wait_s <= 0 or self.full):
            self._refuse(group, Result.NO_WORKER)
            return
        for job in group:
            job.expires = self._loop.time() + wait_s
        self._queue.append(group)
        self._queued += len(group)
        if not group[0].patient and self._timer is None:
            self._timer = self._loop.call_at(group[0].expires, self._expire)

    def _lane_for(self, size: int) -> Lane | None:
        best: Lane | None = None
        fewest = 1 << 30
        for lane in self.lanes:
            waiting = len(lane.pending)
            if waiting == 0 and lane.ready:
                return lane
            if waiting < fewest and size == 1 and lane.ready and waiting < lane.depth:
                best, fewest = lane, waiting
        return best

    @staticmethod
    def _give(lane: Lane, group: Group) -> bool:
        if group[0].sink.batches:
            lane.give_batch(group)
            return True
        return lane.give(group[0])

    def refill(self, lane: Lane) -> None:
        """The lane may have room: give it what waits."""
        queue = self._queue
        while queue and lane.ready:
            group = queue[0]
            if lane.pending and (group[0].sink.batches or len(lane.pending) >= lane.depth):
                return
            if not self._give(lane, group):
                return
            queue.popleft()
            self._queued -= len(group)

    def take_back(self, jobs: Group) -> None:
        """Jobs a dead worker had not begun, oldest first: they go to the front, for any worker."""
        if self._closing:
            self._refuse(jobs, Result.STOPPED)
            return
        groups = [jobs] if jobs and jobs[0].sink.batches else [[job] for job in jobs]
        self._queue.extendleft(reversed(groups))
        self._queued += len(jobs)
        for lane in self.lanes:
            self.refill(lane)

    # ---------------------------------------------------------------------------------------------- refusing

    def _refuse(self, group: Group, result: Result) -> None:
        for job in group:
            # later: `done` must not be called from inside dispatch
            self._loop.call_soon(job.sink.finish, job, Outcome(result))

    def _refuse_queue(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        queue, self._queue = self._queue, deque()
        self._queued = 0
        for group in queue:
            self._refuse(group, Result.STOPPED)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        kept: deque[Group] = deque()
        soonest = float("inf")
        for group in self._queue:
            if group[0].patient or group[0].expires > now:
                kept.append(group)
                if not group[0].patient:
                    soonest = min(soonest, group[0].expires)
            else:
                self._queued -= len(group)
                self._refuse(group, Result.NO_WORKER)
        self._queue = kept
        if soonest < float("inf"):
            self._timer = self._loop.call_at(soonest, self._expire)
