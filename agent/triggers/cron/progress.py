"""How far a schedule has come: which of its runs are behind it, on a clock that may jump, across restarts.

Flow: the trigger asks `Progress.floor` where to look for the next run, and tells it of every run it has dealt with.
Promise: a run made once is not made again when the clock is set back by up to an hour; a clock set back further was
wrong before, so the schedule goes on from the new time; when it comes forward again, what was made stays made.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

BACKWARD_LIMIT_S = 3600.0
"""A clock set back by more than this is believed, and runs it lies before are forgotten."""


class Progress:
    """`since`: looked at up to here. `made`: the latest run made. Both in seconds since 1970."""

    def __init__(self, now: float, made: float | None) -> None:
        self._made = -math.inf if made is None else made
        self._since = now if made is None else min(now, made)

    def floor(self, now: float) -> float:
        """Runs up to and including this instant are behind us."""
        self._since = min(self._since, now)
        ahead = self._made - now
        return max(self._since, self._made) if ahead <= BACKWARD_LIMIT_S else self._since

    def passed(self, run: float, *, made: bool) -> None:
        """Every run up to `run` was looked at; this last one was made, or left out."""
        self._since = run
        if made:
            self._made = max(self._made, run)


class LastRun:
    """The last run in a file of the trigger's state folder, for `persist: true`.

    Written only when a run has ended. Not synced to the disk: a power cut in the wrong second costs one run too many or
    one too few, while a sync for each run would stop the event loop and wear out the card.
    """

    def __init__(self, folder: Path, schedule: str) -> None:
        self._path = folder / "last-run.json"
        self._schedule = schedule

    def read(self) -> float | None:
        """Seconds since 1970; None when there is none, or it belongs to another schedule or cannot be read."""
        try:
            stored = json.loads(self._path.read_text())
            return float(stored["at"]) if stored["schedule"] == self._schedule else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, at: float) -> None:
        """Remember `at`. Raises OSError."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"at": at, "schedule": self._schedule}))
        os.replace(temporary, self._path)
