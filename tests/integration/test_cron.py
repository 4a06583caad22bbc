"""The cron trigger on the machine's own clock, and on one that is set while it runs (libfaketime)."""

from __future__ import annotations

import asyncio
import ctypes
import glob
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.triggers.cron.clock import open_wall_clock
from tests.support.eventually import eventually
from tests.support.tools import lacking

PROBE = """
import asyncio, signal, sys
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo
from agent.triggers.cron.clock import open_wall_clock
from agent.triggers.cron.runs import Runs
from agent.triggers.cron.schedule import Schedule
from agent.triggers.cron.trigger import CronSpec, follow_schedule
from tests.support.recording_sink import RecordingSink

async def main(expression, zone, missed):
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    sink = RecordingSink(Path("."))
    make = CronSpec(kind="cron", schedule=expression).event.make
    with open_wall_clock(stretch_s=0.05) as clock:
        def told():
            print(clock.now(), flush=True)
            return make()
        runs = Runs(sink, told, queue=False, jitter_s=0)
        print("ready", flush=True)
        await follow_schedule(Schedule(expression, ZoneInfo(zone)), missed, None, clock, sink, runs)

with suppress(asyncio.CancelledError):
    asyncio.run(main(*sys.argv[1:]))
"""
"""Prints the (faked) time of every run. The kernel does not tell of a faked clock, so it looks 20 times a second. It
ends in order when asked to, so that libfaketime leaves no shared memory behind."""


class FakedRuns:
    """A cron trigger in a process of its own, whose clock the test sets; `times` of its runs."""

    def __init__(self, offset_file: Path) -> None:
        self._offset_file = offset_file
        self.times: list[float] = []
        self.ready = False

    def set_clock(self, now: float) -> None:
        temporary = self._offset_file.with_suffix(".new")
        temporary.write_text(f"{now - time.time():+.3f}\n")
        os.replace(temporary, self._offset_file)

    async def listen(self, output: asyncio.StreamReader) -> None:
        async for line in output:
            if line.strip() == b"ready":
                self.ready = True
            else:
                self.times.append(float(line))


def libfaketime() -> str:
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("libfaketime is not installed: apt install faketime")
    return found[0]


@asynccontextmanager
async def faked(tmp_path: Path, now: float, expression: str, zone: str, missed: str) -> AsyncIterator[FakedRuns]:
    runs = FakedRuns(tmp_path / "offset")
    runs.set_clock(now)
    environment = os.environ | {
        "LD_PRELOAD": libfaketime(),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, expression, zone, missed, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runs.listen(process.stdout))
        try:
            await eventually(lambda: runs.ready)
            yield runs
        finally:
            process.terminate()
            await process.wait()


def berlin(*parts: int) -> float:
    return datetime(*parts, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()  # type: ignore[misc, arg-type]


async def test_across_a_change_to_summer_time_a_skipped_time_runs_once_after_the_gap(tmp_path: Path) -> None:
    before = berlin(2025, 3, 30, 1, 59, 59)
    async with faked(tmp_path, before - 100, "30 2 * * *", "Europe/Berlin", "once") as runs:
        runs.set_clock(before)
        await eventually(lambda: len(runs.times) == 1)
        assert before + 1 <= runs.times[0] < before + 9
        runs.set_clock(berlin(2025, 3, 31, 2, 29, 59))
        await eventually(lambda: len(runs.times) == 2)
        assert runs.times[1] >= berlin(2025, 3, 31, 2, 30)


async def test_a_clock_set_forward_then_back_makes_one_run_and_repeats_none(tmp_path: Path) -> None:
    noon = berlin(2025, 6, 2, 12, 0, 30)
    async with faked(tmp_path, noon, "*/10 * * * *", "Europe/Berlin", "once") as runs:
        runs.set_clock(noon + 3000)  # 12:50:30
        await eventually(lambda: len(runs.times) == 1)
        runs.set_clock(noon + 565)  # 12:09:55: the runs up to 12:50 are behind
        runs.set_clock(noon + 3000)
        runs.set_clock(noon + 3568)  # 12:59:58
        await eventually(lambda: len(runs.times) == 2)
        assert runs.times[1] >= berlin(2025, 6, 2, 13, 0)


async def test_fifty_years_forward_are_one_run(tmp_path: Path) -> None:
    async with faked(tmp_path, 1000.0, "*/1 * * * * *", "UTC", "once") as runs:
        await eventually(lambda: len(runs.times) >= 1)
        made = len(runs.times)
        later = berlin(2025, 6, 2, 12)
        runs.set_clock(later)
        await eventually(lambda: runs.times[-1] >= later + 2)
        assert len(runs.times) - made <= runs.times[-1] - later + 3


class Timex(ctypes.Structure):
    """`struct timex`, as far as the test needs it."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "frequency", "maximum_error", "estimated_error")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "nanoseconds")),
        ("rest", ctypes.c_long * 32),
    ]


def step_the_clock_by_a_nanosecond() -> bool:
    """To the kernel that is a clock that was set. False where it is not allowed."""
    adj_setoffset_nano = 0x0100 | 0x2000
    return ctypes.CDLL(None).adjtimex(ctypes.byref(Timex(modes=adj_setoffset_nano, nanoseconds=1))) >= 0


async def test_the_kernel_tells_of_a_clock_that_was_set() -> None:
    with open_wall_clock() as clock:
        sleeper = asyncio.create_task(clock.sleep_until(clock.now() + 50))
        await asyncio.sleep(0)
        if not step_the_clock_by_a_nanosecond():
            sleeper.cancel()
            lacking("needs the right to set the clock: CAP_SYS_TIME")
        await asyncio.wait_for(sleeper, 2)


async def test_the_clock_leaves_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with open_wall_clock() as clock:
            await clock.sleep_until(clock.now())
    assert len(os.listdir("/proc/self/fd")) == before
