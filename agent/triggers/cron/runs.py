"""One run of the handler at a time, however the schedule falls.

Flow: the schedule says a run is due -> `Runs.start` -> sink -> the outcome frees the place for the next. The schedule
never waits here: a handler that takes longer than the time between two runs costs runs, not punctuality.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence

from agent.model.event import Event, Outcome, Result
from agent.model.sink import Sink
from agent.triggers.cron.progress import LastRun

QUEUE_LIMIT = 100
"""Runs that may wait, under `concurrency: queue` and `missed: all`."""

_NEVER_STARTED = (Result.STOPPED, Result.NO_WORKER)


class Runs:
    """`last`, where given, is told of every run the handler has had. Used on the event loop only."""

    def __init__(
        self, sink: Sink, make: Callable[[], Event], *, queue: bool, jitter_s: float, last: LastRun | None = None
    ) -> None:
        self._sink, self._make, self._queue, self._jitter_s, self._last = sink, make, queue, jitter_s, last
        self._waiting: deque[float] = deque()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._busy = False

    def start(self, due: Sequence[float]) -> None:
        """Make these runs, `jitter` later. Of several (runs to catch up with) each waits for the one before."""
        if not self._jitter_s:
            self._start(due)
            return

        def start() -> None:
            self._delayed.discard(handle)
            self._start(due)

        handle = asyncio.get_running_loop().call_later(random.uniform(0, self._jitter_s), start)
        self._delayed.add(handle)

    def close(self) -> None:
        """Start nothing more. What is in the worker goes on: wait with `sink.drained()`."""
        for handle in self._delayed:
            handle.cancel()
        self._delayed.clear()
        self._waiting.clear()

    def _start(self, due: Sequence[float]) -> None:
        queue = self._queue or len(due) > 1
        for at in due:
            if not self._busy:
                self._deliver(at)
            elif queue and len(self._waiting) < QUEUE_LIMIT:
                self._waiting.append(at)
            else:
                self._sink.count("overlapped")

    def _deliver(self, at: float) -> None:
        self._busy = True
        self._sink.deliver(self._make(), lambda outcome: self._done(at, outcome))

    def _done(self, at: float, outcome: Outcome) -> None:
        self._busy = False
        if self._last and outcome.result not in _NEVER_STARTED:
            self._remember(self._last, at)
        if self._waiting:
            self._deliver(self._waiting.popleft())

    def _remember(self, last: LastRun, at: float) -> None:
        try:
            last.write(at)
        except OSError as error:
            self._sink.log.warning("cannot remember the last run", error=str(error))
