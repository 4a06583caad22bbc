"""A wall clock that a test sets, for a process that is started with its environment; monotonic time stays."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest


class FakedClock:
    """`environment` is for the process; `jump(seconds)` moves its wall clock that far from the true time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        """At the next look at the clock it is `seconds` off."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+.3f}\n")
        os.replace(temporary, self._file)

    def set(self, now: float) -> None:
        """Seconds since 1970."""
        self.jump(now - time.time())


def _library() -> str:
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("libfaketime is not installed: apt install faketime")
    return found[0]
