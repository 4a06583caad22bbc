"""How long to wait before the next attempt: full jitter, growing, bounded.

Why: after an outage a whole fleet comes back at once, and equal delays keep it in step. A connection that is kicked
soon after it came up counts as one more failure: only one that lasted says that the trouble is over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

STABLE_S = 30.0
"""A connection that lived this long ends the growth."""


class Backoff:
    """One timer's memory. `first_s` bounds the first delay; the bound doubles up to `most_s`."""

    def __init__(
        self,
        first_s: float,
        most_s: float,
        *,
        stable_s: float = STABLE_S,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s, self._most_s, self._stable_s = first_s, most_s, stable_s
        self._clock, self._uniform = clock, uniform
        self._failures = 0
        self._up_since: float | None = None
        self.kicks = 0  # connections in a row that came up and did not last

    def up(self) -> None:
        """It works now."""
        self._up_since = self._clock()

    def delay_s(self) -> float:
        """It failed, or works no longer: seconds to wait before the next attempt."""
        if self._up_since is not None:
            stable = self._clock() - self._up_since >= self._stable_s
            self._failures = 0 if stable else self._failures
            self.kicks = 0 if stable else self.kicks + 1
        self._up_since = None
        bound = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return self._uniform(0.0, bound)
