"""What time does to a lane: events over theirs, workers that do not answer, workers that have served theirs.

Flow: lane -> [watch] -> lane.
Promise: a lane that has nothing in hand has no timer here, unless `recycle` asks for one; a busy one has one at a time,
not one an event. An event is over at its time, not when its worker has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.model.spec import Recycle
from agent.processor.health import HUNG_GRACE_S, UNBEGUN_NS, WEDGED_NS
from agent.processor.job import Job
from agent.processor.limits.memory import held_bytes

if TYPE_CHECKING:
    from agent.processor.lane import Lane

NEVER = 1 << 62
_MEMORY_LOOK_S = 10.0
_EARLY_NS = 500_000  # a timer may be so early


class Watch:
    """Of one lane. `timer` is that of the event which is due first; None: nothing is in hand."""

    def __init__(self, lane: Lane) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._rare: dict[str, asyncio.TimerHandle] = {}  # by what they are for
        self._closed = False

    def later(self, what: str, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` after so many seconds, unless the worker ends before."""
        if not self._closed:
            self._rare[what] = self._loop.call_later(seconds, do)

    def close(self) -> None:
        """The worker has ended."""
        self._closed = True
        for timer in self._rare.values():
            timer.cancel()
        if self.timer:
            self.timer.cancel()
            self.timer = None

    # ------------------------------------------------------------------------------------------ events

    def arm(self) -> None:
        """An event was given to a lane that had no timer."""
        job = self._lane.head()
        if job is not None and not self._closed:
            self._look_in(self._deadline(job, begun=True) - time.monotonic_ns())

    def _look_in(self, left_ns: int) -> None:
        self.timer = self._loop.call_later(max(0.0, left_ns / 1e9), self._look)

    def _deadline(self, job: Job, begun: bool) -> int:
        """When to act on the job at the head. One that no handler has seen yet has a worker that does not answer."""
        # One at a time: a handler begins when the one before it was answered. Several at once: each for itself.
        one_at_a_time = self._lane.pool.in_flight_limit == 1
        since = max(job.begun_ns, self._lane.last_reply_ns) if one_at_a_time else job.begun_ns
        limit = self._lane.pool.event_timeout_ns
        if not limit:
            return since + WEDGED_NS
        return since + (limit if begun else max(limit, UNBEGUN_NS))

    def _look(self) -> None:
        self.timer = None
        job = self._lane.head()
        if job is None:
            return
        begun = self._lane.begun(job)
        left_ns = self._deadline(job, begun) - time.monotonic_ns()
        if left_ns > _EARLY_NS:
            # One that is not begun may be answered soon: then the event after it is due within the usual time from now.
            self._look_in(left_ns if begun else min(left_ns, self._lane.pool.event_timeout_ns or left_ns))
        elif not begun:
            self._lane.replace("it does not take its events")
        elif self._lane.pool.event_timeout_ns:
            self._overdue(job)
        else:  # it may take as long as it likes; look again at what waits behind it
            self._look_in(WEDGED_NS)

    def _overdue(self, job: Job) -> None:
        """Its worker is ended, and it alone."""
        lane = self._lane
        if lane.pool.in_flight_limit > 1:
            # The others in hand are not late: they are finished, while a successor takes what is new.
            lane.over_time([job])
            lane.want("an event timed out")
            self.arm()
            return
        # In one call of a handler there may be a batch: all that is begun and not answered.
        lane.over_time([item for item in lane.pending.values() if lane.begun(item)])
        lane.pool.log.warning("worker is ended, its event timed out", worker=lane.index, pid=lane.pid)
        if lane.pending:
            # Events wait in its ring. If it came back to itself it would begin one, only to be killed with it in hand.
            lane.kill()
        else:
            lane.terminate()
            self.later("kill", HUNG_GRACE_S, lane.kill)

    # --------------------------------------------------------------------------------------- recycling

    def plan_recycling(self, recycle: Recycle) -> int:
        """The worker is ready. Returns the id of the record from which on it is due."""
        lane = self._lane
        if recycle.age:
            # Workers that started together must not all leave together.
            age_s = recycle.age * (1 - lane.index / (10 * len(lane.pool.lanes)))
            self.later("age", age_s, lambda: lane.want(f"an age of {age_s:g} s"))
        if recycle.memory_bytes:
            self.later("memory", _MEMORY_LOOK_S, self._look_at_memory)
        return 1 + recycle.events if recycle.events else NEVER

    def _look_at_memory(self) -> None:
        held = held_bytes(self._lane.pid)
        if held > self._lane.pool.recycle.memory_bytes:
            self._lane.want(f"{held >> 20} MiB of memory")
        else:
            self.later("memory", _MEMORY_LOOK_S, self._look_at_memory)
