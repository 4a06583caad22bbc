"""The line in front of the pool: how many events of a trigger are with the workers, and in which order they get there.

Flow: sink -> [line] -> pool -> lane; ends and failed attempts come back here.

Why a line of its own: what has gone to the pool cannot be called back. So only about as many events as the workers'
rings hold are handed over, and the others wait here, where an event that has failed can hold back those behind it.

Promise, per order key
- strict: one event at a time, from its first attempt to its end. Other keys go on beside it.
- not strict (one worker, nothing has failed lately): events go to the worker in their order, several in its ring, and
  no key is even looked at. The first failed attempt makes the line strict for `STRICT_S`; events of that key which
  were in the ring already, about a millisecond of work at most, run before its next attempt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.model.event import Text
from agent.processor.delivery.pick import Pick
from agent.processor.job import Job

STRICT_S = 60.0


class Depth(Protocol):
    """What the line must know of a lane."""

    depth: int


class Line:
    """Used on the event loop. `submit` hands one job to the pool; `key_of` None: there is no order to keep."""

    def __init__(
        self,
        submit: Callable[[Job], None],
        lanes: Sequence[Depth],
        key_of: Pick | None,
        *,
        strict: bool,
        least: int = 0,
    ) -> None:
        self._submit = submit
        self._lanes = lanes
        self._key_of = key_of
        self._always_strict = strict
        self._least = least  # jobs handed over at least, whatever the lanes say: a batch must get full
        self._strict = strict and key_of is not None
        self._lane = lanes[0] if key_of is not None and not strict else None  # which keeps the order by itself
        self._relax: asyncio.TimerHandle | None = None
        self._handed = 0  # with the pool
        self._loose = 0  # of those, without a key, handed over before the line became strict
        self._waiting: deque[Job] = deque()  # for a place with the pool
        self._busy: dict[Text, deque[Job] | None] = {}  # key -> those behind the one that is on its way

    @property
    def has_room(self) -> bool:
        """One more job would go to the pool at once."""
        return not self._waiting and self._handed < self._limit()

    def enter(self, job: Job) -> None:
        """A new job. It goes to the pool now or when its turn has come."""
        if self._lane is not None and self._lane is not self._lanes[0]:
            self._lane = self._lanes[0]  # a fresh worker, while the old one finishes what it has
            self._loose = self._handed
        if (self._strict or self._busy) and not self._may_pass(job):
            return
        if self._handed < self._limit() and not self._loose:
            self._handed += 1
            self._submit(job)
        else:
            self._waiting.append(job)

    def left(self, job: Job) -> None:
        """The job has ended for good."""
        self._hand_back(job)
        self._end_turn(job)
        self._fill()

    def failed(self, job: Job) -> bool:
        """An attempt has failed, another will be made. True: it comes by itself, after an older one of the same key;
        False: the caller brings it back with `again`.
        """
        self._hand_back(job)
        held = self._key_of is not None and not self._keep_back(job)
        self._fill()
        return held

    def again(self, job: Job) -> None:
        """The next attempt: it does not queue a second time."""
        self._handed += 1
        self._submit(job)

    def dropped(self, job: Job) -> None:
        """A job between two attempts has ended for good."""
        self._end_turn(job)
        self._fill()

    def empty(self) -> list[Job]:
        """Take out everything that waits, for a place or behind a key, oldest first."""
        out = list(self._waiting)
        for key, held in self._busy.items():
            out += held or ()
            self._busy[key] = None
        for job in self._waiting:
            self._busy.pop(job.key, None)
            job.key = b""
        self._waiting.clear()
        return sorted(out, key=lambda job: job.started_ns)

    def close(self) -> None:
        """Stop the timer."""
        if self._relax:
            self._relax.cancel()
            self._relax = None

    def _limit(self) -> int:
        limit = self._least
        for lane in self._lanes:
            limit += lane.depth
        return limit

    def _hand_back(self, job: Job) -> None:
        self._handed -= 1
        if self._loose and not job.key:
            self._loose -= 1

    def _may_pass(self, job: Job) -> bool:
        """Take the job's key, or put the job behind the one that has it."""
        assert self._key_of is not None
        key = self._key_of(job.event)
        if not key:
            return True
        if key in self._busy:
            self._hold(key, job)
            return False
        if self._strict:
            self._busy[key] = None
            job.key = key
        return True

    def _keep_back(self, job: Job) -> bool:
        """The job that failed keeps back its key from now on. False: an older one does already, it waits for that."""
        relaxed = not self._strict
        if not self._always_strict:
            self._be_strict()
        took = bool(job.key) or self._may_pass(job)
        if relaxed:
            self._loose = self._handed
            waiting, self._waiting = self._waiting, deque()
            self._waiting.extend(other for other in waiting if other.key or self._may_pass(other))
        return took

    def _hold(self, key: Text, job: Job) -> None:
        held = self._busy[key]
        if held is None:
            held = self._busy[key] = deque()
        if not held or held[-1].started_ns <= job.started_ns:
            held.append(job)
            return
        at = next(index for index, other in enumerate(held) if other.started_ns > job.started_ns)
        held.insert(at, job)  # it failed after later ones had been held: back to its place

    def _end_turn(self, job: Job) -> None:
        """Its key is free for the next one, which then waits for a place with the pool like everybody."""
        key, job.key = job.key, b""
        if not key:
            return
        held = self._busy.get(key)
        if held:
            following = held.popleft()
            following.key = key
            self._waiting.append(following)
        else:
            self._busy.pop(key, None)

    def _fill(self) -> None:
        if self._loose:
            return  # what the worker has in hand without a key must be known to be good first
        waiting, limit = self._waiting, self._limit()
        while waiting and self._handed < limit:
            self._handed += 1
            self._submit(waiting.popleft())

    def _be_strict(self) -> None:
        self._strict = True
        self.close()
        self._relax = asyncio.get_running_loop().call_later(STRICT_S, self._be_relaxed)

    def _be_relaxed(self) -> None:
        self._relax = None
        self._strict = False
