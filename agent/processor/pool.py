"""A pool: the workers that one or more triggers share, and the bounded queue in front of them.

Flow: sink -> [pool] -> lane -> channel -> worker.
Promise: an event goes to an idle worker first; when all are busy it may queue in a ring about a millisecond of work
deep; behind that it waits here, in order. A worker that dies is replaced, waiting longer each time it dies young; one
that is to be recycled serves until its successor is ready. When workers only die, whoever waits is told so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.model.errors import FunctionError
from agent.model.event import Outcome, Result
from agent.model.spec import Recycle
from agent.processor.function_log import FunctionLog
from agent.processor.health import CALM_S, CrashLoop
from agent.processor.job import Group
from agent.processor.lane import Lane
from agent.processor.limits.limits import Limits
from agent.processor.limits.memory import available_bytes, held_bytes
from agent.processor.worker import WorkerLaunch

if TYPE_CHECKING:
    from loguru import Logger

_ANSWERED_LOOK_S = 0.5  # while failing: how soon after an answer the function counts as well again
_FOLLOW_AGAIN_S = 60.0
_SPARE_BYTES = 32 << 20  # to leave free when a successor is started beside the worker it follows


class Pool:
    """Workers of one allocator. Use `async with pool.open()`: inside it all workers have been ready once.

    `report` is told when the pool begins to fail, with the reason, and when it is well again.
    """

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
        recycle: Recycle | None = None,
        limits: Limits | None = None,
        report: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> None:
        self.name = name
        self.in_flight_limit = in_flight_limit
        self.event_timeout_ns = int(event_timeout_s * 1e9)
        self.function_log = function_log
        self.log = log
        self.recycle = recycle or Recycle()
        self.restarts = 0
        self.recycled = 0
        self.failing = ""  # why, while workers only die
        self._limits = limits
        self._report = report
        self._launches = launches
        self._queue_size = queue_size
        self._queue: deque[Group] = deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._grace_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._first: list[asyncio.Future[None]] = [self._loop.create_future() for _ in launches]
        self._crashes = [CrashLoop() for _ in launches]
        self.lanes = [Lane(self, index) for index in range(len(launches))]
        self._beside: set[Lane] = set()  # successors that start, and workers that finish what they have

    def launch_of(self, index: int) -> WorkerLaunch:
        """How worker number `index` is started. Raises OSError."""
        return self._launches[index]()

    @staticmethod
    def function_error(reason: str) -> FunctionError:
        """The error for a worker that could not start."""
        return FunctionError(f"the function cannot start: {reason}")

    @contextlib.asynccontextmanager
    async def open(self, grace_s: float) -> AsyncIterator[Pool]:
        """Start the workers and keep them alive; at the end ask them to stop, wait `grace_s` seconds, kill them."""
        self._grace_s = grace_s
        async with asyncio.TaskGroup() as keepers:
            self._keepers = keepers
            tasks = [
                keepers.create_task(self._keep(index, first), name=f"lane:{self.name}:{index}")
                for index, first in enumerate(self._first)
            ]
            try:
                yield self
            finally:
                self._closing = True
                self._refuse_queue()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*(lane.close(grace_s) for lane in (*self.lanes, *self._beside)))

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

    # ------------------------------------------------------------------------------------- keeping workers

    async def _keep(self, index: int, first: asyncio.Future[None]) -> None:
        """One worker's place: there is always one in it, or on its way."""
        while True:
            lane, begun = self.lanes[index], self._loop.time()
            try:
                await lane.start()
                if not first.done():
                    first.set_result(None)
                self.refill(lane)
                self._look_if_well(lane)
                while why := await lane.until_due():
                    lane = await self._follow(lane, why)
            except (FunctionError, OSError) as error:
                if not first.done():
                    first.set_exception(error if isinstance(error, FunctionError) else self.function_error(str(error)))
                    return
                self.log.error("worker cannot start", worker=index, reason=str(error))
                lane.last_exit = lane.last_exit or str(error)
            await self._died(lane, self._loop.time() - begun)
            self.lanes[index] = Lane(self, index)

    async def _died(self, lane: Lane, lived_s: float) -> None:
        self.restarts += 1
        crashes = self._crashes[lane.index]
        pause_s = crashes.died(lived_s, lane.answered, lane.hung)
        self.log.warning("worker ended", worker=lane.index, how=lane.last_exit, again_in_s=round(pause_s, 2))
        if crashes.failing:
            self._fail(f"its workers end without answering an event, the last one with {lane.last_exit}")
        await asyncio.sleep(pause_s)

    async def _follow(self, lane: Lane, why: str) -> Lane:
        """Replace a worker that still serves. Returns the one that has its place now."""
        self.log.info("worker is replaced by a fresh one", worker=lane.index, pid=lane.pid, after=why)
        self.recycled += 1
        successor = Lane(self, lane.index)
        if not self._room_for_two(lane):
            await lane.leave(self._grace_s)
        self._beside.add(successor)
        try:
            await successor.start()
        except (FunctionError, OSError) as error:
            self.log.error("a successor cannot start", worker=lane.index, reason=str(error), again_in_s=_FOLLOW_AGAIN_S)
            if lane.ready:
                lane.ask_again(why, _FOLLOW_AGAIN_S)  # better an old one than none
            else:
                await lane.leave(self._grace_s)  # its place is empty then, and filled as after a death
            return lane
        finally:
            if not self._closing:
                self._beside.discard(successor)
        self.lanes[lane.index] = successor
        self.refill(successor)
        self._beside.add(lane)
        self._keepers.create_task(self._let_go(lane), name=f"leaving:{self.name}:{lane.index}")
        return successor

    async def _let_go(self, lane: Lane) -> None:
        try:
            await lane.leave(self._grace_s)
        finally:
            self._beside.discard(lane)

    def _room_for_two(self, lane: Lane) -> bool:
        held = held_bytes(lane.pid)
        within = self._limits is None or self._limits.room_for(held)
        return within and available_bytes() > 2 * held + _SPARE_BYTES

    # -------------------------------------------------------------------------------------------- failing

    def _fail(self, why: str) -> None:
        if why != self.failing:
            self.log.error("function is failing", reason=why)
            self._report({"event": "failing", "pool": self.name, "why": why})
        self.failing = why
        if not any(lane.ready for lane in self.lanes):
            self._refuse_impatient(lambda group: False)

    def _look_if_well(self, lane: Lane) -> None:
        """While failing: has this worker answered something, or lived long enough?"""
        if self.failing and lane.ready:
            begun = self._loop.time()
            self._loop.call_later(_ANSWERED_LOOK_S, self._look_again, lane, begun)

    def _look_again(self, lane: Lane, begun: float) -> None:
        if not self.failing or not lane.ready or self._closing:
            return
        if lane.answered or self._loop.time() - begun >= CALM_S:
            self.failing = ""
            for crashes in self._crashes:
                crashes.recovered()
            self.log.info("function is well again")
            self._report({"event": "failing", "pool": self.name, "why": ""})
        else:
            self._loop.call_later(_ANSWERED_LOOK_S, self._look_again, lane, begun)

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
        if not group[0].patient and (wait_s <= 0 or self.full or self._hopeless):
            self._refuse(group, Result.NO_WORKER)
            return
        for job in group:
            job.expires = self._loop.time() + wait_s
        self._queue.append(group)
        self._queued += len(group)
        if not group[0].patient and self._timer is None:
            self._timer = self._loop.call_at(group[0].expires, self._expire)

    @property
    def _hopeless(self) -> bool:
        """No use in waiting for a worker."""
        return bool(self.failing) and not any(lane.ready for lane in self.lanes)

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
        soonest = self._refuse_impatient(lambda group: group[0].expires > now)
        if soonest < float("inf"):
            self._timer = self._loop.call_at(soonest, self._expire)

    def _refuse_impatient(self, may_wait: Callable[[Group], bool]) -> float:
        """Refuse what waits, is not patient and may not wait; the time at which the next one of the rest expires."""
        kept: deque[Group] = deque()
        soonest = float("inf")
        for group in self._queue:
            if group[0].patient or may_wait(group):
                kept.append(group)
                if not group[0].patient:
                    soonest = min(soonest, group[0].expires)
            else:
                self._queued -= len(group)
                self._refuse(group, Result.NO_WORKER)
        self._queue = kept
        return soonest
