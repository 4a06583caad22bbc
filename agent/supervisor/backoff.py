"""How long to wait before a processor is started again, and when to stop trying so often.

Why: a function that dies at once must not spin the processor; one that dies once a day must be back in a blink.
Flow: the supervised function reports failures and stable times -> [backoff] -> seconds to wait, or parked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. Delays double from `first_s` to `longest_s`; `limit` failures in a row park the function."""

    first_s: float = 0.1
    longest_s: float = 30.0
    stable_s: float = 10.0  # a processor that served this long clears the count
    limit: int = 8
    parked_s: float = 300.0  # between attempts while parked
    drain_margin_s: float = 2.0  # added to a function's termination time-out, and between SIGTERM and SIGKILL


class Backoff:
    """Failures in a row of one function. `random_` gives a number in [0, 1); given by tests."""

    def __init__(self, policy: Policy, random_: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._random = random_
        self.failures = 0
        self._absences = 0

    @property
    def parked(self) -> bool:
        """So many failures in a row that only a change, or a long wait, is worth another attempt."""
        return self.failures >= self._policy.limit

    def failed(self) -> float:
        """Count a failure; seconds to wait before the next attempt, jittered by up to half so that functions which
        fell together do not rise together."""
        self.failures += 1
        if self.parked:
            return self._policy.parked_s * (1 + self._random() / 10)
        return self._delay(self.failures)

    def unavailable(self) -> float:
        """What it needs is not there, which is no fault of its own: wait as after a failure, and never park."""
        self._absences += 1
        return self._delay(self._absences)

    def _delay(self, times: int) -> float:
        longest = min(self._policy.longest_s, self._policy.first_s * 2.0 ** min(times - 1, 30))
        return longest * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """It served for a stable time: start counting anew."""
        self.failures = self._absences = 0
