"""A pool: the workers that one or more triggers share, and the bounded queue in front of them.

Flow: sink -> [pool] -> lane -> channel -> worker.
Promise: an event goes to an idle worker first; when all are busy it may queue in a ring about a millisecond of work
deep; behind that it waits here, in order. A worker that dies is replaced, waiting longer each time it dies young; one
that is to be recycled serves until its successor is ready. When workers only die, whoever waits is told so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
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
from agent.processor.outbox.outbox import Outbox
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
        outbox: Outbox | None = None,
    ) -> None:
        self.name = name
        self.outbox = outbox
        self._held = False  # the outbox is full: what waits goes on waiting
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
        self._impatient: deque[Group] = deque()  # callers, who wait so long and no longer
        self._patient: deque[Group] = deque()  # deliveries, bounded by their triggers
        self._callers_turn = True
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._grace_s = 0.0
        self._readiness_s: float | None = None
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
        """Returns once every worker has been ready. FunctionError when one cannot start or is not ready in time.

        Workers that follow later have as much time.
        """
        self._readiness_s = within_s
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*self._first)
        except TimeoutError:
            raise FunctionError(
                f"Function wasn't ready in time: {within_s:g} s",
                fix="look at init_context and at module level of the handler, or raise readinessTimeoutSeconds",
            ) from None

    def give_up(self) -> None:
        """What has not been answered by now will not be: workers are killed, what waits is refused."""
        self._closing = True
        self._refuse_queue()
        for lane in (*self.lanes, *self._beside):
            lane.kill()

    # ------------------------------------------------------------------------------------- keeping workers

    async def _keep(self, index: int, first: asyncio.Future[None]) -> None:
        """One worker's place: there is always one in it, or on its way, until the pool closes."""
        while not self._closing:
            lane, begun = self.lanes[index], self._loop.time()
            try:
                await self._start(lane)
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

    async def _start(self, lane: Lane) -> None:
        """Start a worker; one that is not ready in time is ended. The first ones are watched by `ready`."""
        try:
            async with asyncio.timeout(self._readiness_s if self._first[lane.index].done() else None):
                await lane.start()
        except TimeoutError:
            await lane.close(0)
            raise self.function_error(f"not ready within {self._readiness_s:g} s") from None

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
            await self._start(successor)
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
            self._refuse_impatient(lambda _: False)

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

    def submit(self, group: Group, wait_s: float) -> None:
        """Give the group to a worker, or let it wait: patient jobs as long as it takes, others `wait_s` seconds."""
        if not self._impatient and not self._patient:
            lane = self._lane_for(group)
            if lane is not None and self._give(lane, group):
                return
        if self._closing:
            self._refuse(group, Result.STOPPED)
        elif group[0].patient:
            self._patient.append(group)
        elif wait_s <= 0 or len(self._impatient) >= self._queue_size or self._hopeless:
            self._refuse(group, Result.NO_WORKER)
        else:
            self._wait(group, self._loop.time() + wait_s)
            self._impatient.append(group)

    def _wait(self, group: Group, until: float) -> None:
        for job in group:
            job.expires = until
        if self._timer is None or self._timer.when() > until:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(until, self._expire)

    @property
    def _hopeless(self) -> bool:
        """No use in waiting for a worker."""
        return bool(self.failing) and not any(lane.ready for lane in self.lanes)

    def _lane_for(self, group: Group) -> Lane | None:
        best: Lane | None = None
        fewest = 1 << 30
        if self._held:
            return None
        alone = group[0].sink.batches
        for lane in self.lanes:
            waiting = len(lane.pending)
            if not lane.ready or lane.half_batch:
                continue
            if waiting == 0:
                return lane
            if waiting < fewest and not alone and waiting < lane.depth:
                best, fewest = lane, waiting
        return best

    @staticmethod
    def _give(lane: Lane, group: Group) -> bool:
        if group[0].sink.batches:
            lane.give_batch(group)
            return True
        return lane.give(group[0])

    def hold(self, held: bool) -> None:
        """Give the workers nothing more, or go on."""
        self._held = held
        for lane in self.lanes:
            self.refill(lane)

    def refill(self, lane: Lane) -> None:
        """The lane may have room: give it what waits, callers and deliveries in turn."""
        if self._held:
            return
        while lane.ready and not lane.half_batch:
            queue = self._next_queue()
            if not queue:
                return
            group = queue[0]
            if lane.pending and (group[0].sink.batches or len(lane.pending) >= lane.depth):
                return
            if not self._give(lane, group):
                return
            queue.popleft()
            self._callers_turn = queue is self._patient

    def _next_queue(self) -> deque[Group]:
        """A backlog of deliveries must not keep callers waiting, nor the other way round."""
        first, second = (self._impatient, self._patient) if self._callers_turn else (self._patient, self._impatient)
        return first or second

    def take_back(self, jobs: Group) -> None:
        """Jobs a dead worker had not begun, oldest first: they go to the front, for any worker."""
        if self._closing:
            self._refuse(jobs, Result.STOPPED)
            return
        for group in reversed(_regrouped(jobs)):
            if group[0].patient:
                self._patient.appendleft(group)
            else:
                self._impatient.appendleft(group)
                waited_s = (time.monotonic_ns() - group[0].started_ns) / 1e9
                self._wait(group, self._loop.time() + max(0.0, group[0].sink.wait_s - waited_s))
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
        for queue in (self._impatient, self._patient):
            while queue:
                self._refuse(queue.popleft(), Result.STOPPED)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._refuse_impatient(lambda group: group[0].expires > now)
        if self._impatient:
            soonest = min(group[0].expires for group in self._impatient)
            self._timer = self._loop.call_at(soonest, self._expire)

    def _refuse_impatient(self, may_wait: Callable[[Group], bool]) -> None:
        """Refuse the callers that may not wait any longer."""
        kept: deque[Group] = deque()
        for group in self._impatient:
            if may_wait(group):
                kept.append(group)
            else:
                self._refuse(group, Result.NO_WORKER)
        self._impatient = kept


def _regrouped(jobs: Group) -> list[Group]:
    """What one lane had, as it was submitted: batches of a trigger together, everything else by itself."""
    groups: list[Group] = []
    for job in jobs:
        if groups and job.sink.batches and groups[-1][0].sink is job.sink:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups
