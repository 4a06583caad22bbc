"""Either side of a channel stopped, debugged, or given another time of day: nothing breaks, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faked_clock import FakedClock
from tests.support.foreground import foreground
from tests.support.interruptions import clock_jumps, debugged, stopped


@pytest.mark.parametrize("side", ["worker", "processor"])
def test_stopped_and_continued(side: str, tmp_path: Path) -> None:
    with foreground(tmp_path) as function:
        stopped(function, side, 1.5)


@pytest.mark.parametrize("side", ["worker", "processor"])
def test_a_debugger_looks_at_it(side: str, tmp_path: Path) -> None:
    with foreground(tmp_path) as function:
        debugged(function, function.worker_pid if side == "worker" else function.process.pid, 2)


def test_the_wall_clock_jumps(tmp_path: Path) -> None:
    clock = FakedClock(tmp_path)
    with foreground(tmp_path, clock.environment) as function:
        clock_jumps(function, clock, 8)
