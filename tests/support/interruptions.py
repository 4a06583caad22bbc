"""What may happen to either side of a channel at any moment and must cost nothing: stopped, debugged, another time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from tests.support.eventually import wait_until
from tests.support.faked_clock import FakedClock
from tests.support.foreground import Foreground
from tests.support.tools import need

YEAR_S = 365 * 86400.0
PATIENCE_S = 8.0  # less than the processor has


def pass_time(seconds: float) -> None:
    """Let that much monotonic time go by."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, within_s=seconds + 60)


def stopped(function: Foreground, side: str, seconds: float) -> None:
    """SIGSTOP while idle and while events come, for that long each, then SIGCONT: all are answered, handled once.

    A worker that leaves its events alone for PATIENCE_S may be replaced; what it had not begun is dealt again.
    """
    pid = function.worker_pid if side == "worker" else function.process.pid
    patient = side == "processor" or seconds < PATIENCE_S
    for events_before in (0, 50):
        function.send(events_before)
        os.kill(pid, signal.SIGSTOP)
        function.send(50)
        before = function.answered
        pass_time(seconds)
        assert not patient or function.answered - before <= events_before, function.replies()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        function.check(same_worker=patient)
        pid = function.worker() if side == "worker" else pid


def debugged(function: Foreground, pid: int, times: int) -> None:
    """A debugger attaches, looks at the stack of every thread, and detaches, while idle and while events come."""
    command = [need("gdb"), "-p", str(pid), "-batch", "-nx", "-ex", "thread apply all bt 3", "-ex", "detach"]
    for time_of_it in range(times):
        if time_of_it % 2:
            function.send(200)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "detached" in done.stdout, done.stderr
        function.send(10)
        function.check()


def clock_jumps(function: Foreground, clock: FakedClock, times: int) -> None:
    """The wall clock goes a year ahead, a year back, to 1970 and home, while both sides wait and while events come."""
    clock.jump(YEAR_S)
    # a date in a reply is kept for a second
    wait_until(lambda: all(abs(seen - time.time() - YEAR_S) < 60 for seen in function.clocks()))
    for jump in range(times):
        clock.jump([YEAR_S, -YEAR_S, -time.time() + 10.0, 0.0][jump % 4])
        function.send(20)
        clock.jump(-YEAR_S * (jump % 3))
        function.send(20)
        function.check()
    clock.jump(0.0)
    function.check()
