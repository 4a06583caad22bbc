"""What is taken for sick, and how patiently: the numbers and the count of deaths that decide about workers.

Flow: lanes look here for their deadlines; a pool counts the deaths of each of its workers' places in a `CrashLoop`.
"""

from __future__ import annotations

import random

HUNG_GRACE_S = 0.05
"""Between SIGTERM and SIGKILL for a worker whose event is over its time."""

WEDGED_NS = 10_000_000_000
"""A worker that leaves an event in its ring for so long, with nothing else in hand, does not answer."""

UNBEGUN_NS = 1_000_000_000
"""The same where there is an eventTimeout, if that is shorter: a busy machine is no reason to end a worker."""

CALM_S = 10.0
"""A worker that lived this long has earned an immediate restart, and its function a clean record."""

DEATHS = 5
"""So many in a row, not one event answered in between, and the function is failing."""

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 10.0
_HUNG_DELAY_S = 0.5  # a service that is away for a minute must not cost the events after it


class CrashLoop:
    """Deaths in a row in one worker's place. The first is answered at once, later ones wait up to ten seconds."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._barren = 0

    @property
    def failing(self) -> bool:
        """It ends again and again, and gets no work done."""
        return self._barren >= DEATHS

    def died(self, lived_s: float, answered: bool, hung: bool = False) -> float:
        """Count a death; seconds to wait before the next start. `hung`: we ended it, which its eventTimeout paces."""
        young = lived_s < CALM_S
        self._barren = self._barren + 1 if young and not answered else 0
        self._delay_s = min(max(_FIRST_DELAY_S, self._delay_s * 2), _LONGEST_DELAY_S) if young else 0.0
        delay_s = min(self._delay_s, _HUNG_DELAY_S) if hung else self._delay_s
        return 0.0 if delay_s <= _FIRST_DELAY_S else delay_s * random.uniform(0.5, 1.0)

    def recovered(self) -> None:
        """It works again."""
        self._barren = 0
