"""Either side of a channel stopped for a minute, debugged again and again, through many jumps of the wall clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faked_clock import FakedClock
from tests.support.foreground import foreground
from tests.support.interruptions import clock_jumps, debugged, stopped


@pytest.mark.parametrize("side", ["worker", "processor"])
def test_stopped_for_a_minute_and_continued(side: str, tmp_path: Path) -> None:
    with foreground(tmp_path) as function:
        stopped(function, side, 60.0)


@pytest.mark.parametrize("side", ["worker", "processor"])
def test_a_debugger_looks_at_it_twenty_times(side: str, tmp_path: Path) -> None:
    with foreground(tmp_path) as function:
        debugged(function, function.worker_pid if side == "worker" else function.process.pid, 20)


def test_the_wall_clock_jumps_two_hundred_times(tmp_path: Path) -> None:
    clock = FakedClock(tmp_path)
    with foreground(tmp_path, clock.environment) as function:
        clock_jumps(function, clock, 200)
