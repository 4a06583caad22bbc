"""The wall clock, as something one can wait on: it may jump, and whoever waits hears of it.

Why: a timer on the wall clock that sleeps on the monotonic one does not notice that the first was set, which on a
machine without a battery clock happens minutes after every boot. The kernel tells whoever holds a timerfd with
TFD_TIMER_CANCEL_ON_SET. Promise: `sleep_until` returns at the given time, and early whenever the clock was set (by
hand, by NTP, on waking from suspend), so the caller looks at the clock again. Nothing polls.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

STRETCH_S = 60.0
"""Longest sleep at a stretch: what a jump takes to be noticed where the kernel cannot tell of it."""

_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_FAR = (1 << 31) - 1 if ctypes.sizeof(ctypes.c_long) == 4 else 1 << 33  # seconds since 1970


class Clock(Protocol):
    """What the trigger needs of time; tests bring one that they can set."""

    def now(self) -> float:
        """Seconds: since 1970 on the wall clock, since some moment on the steady one."""

    async def sleep_until(self, when: float) -> None:
        """Return at `when`, or earlier: the caller looks at `now()` again."""


class WallClock:
    """The machine's clock. Made by `open_wall_clock`."""

    def __init__(self, stretch_s: float = STRETCH_S) -> None:
        self._stretch_s = stretch_s
        self._was_set = asyncio.Event()

    def now(self) -> float:
        return time.time()

    async def sleep_until(self, when: float) -> None:
        self._was_set.clear()
        delay = min(max(0.0, when - self.now()), self._stretch_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._was_set.wait()

    def notice(self, fd: int) -> None:
        """The descriptor is readable: the clock was set, or (on 32-bit machines, in 2038) the timer ran out."""
        try:
            os.read(fd, 8)
        except BlockingIOError:
            return
        except OSError:  # ECANCELED: this is how the kernel says that the clock was set
            self._was_set.set()
            return
        asyncio.get_running_loop().remove_reader(fd)  # a timer that ran out would stay readable and spin


class SteadyClock:
    """The monotonic clock, which nobody can set: what intervals are counted on."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self.now()))


@contextmanager
def open_wall_clock(stretch_s: float = STRETCH_S) -> Iterator[WallClock]:
    """The machine's clock, heard on the running loop until the block is left."""
    clock = WallClock(stretch_s)
    fd = _open_set_notifier()
    if fd is None:
        yield clock
        return
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(fd, clock.notice, fd)
        yield clock
    finally:
        loop.remove_reader(fd)
        os.close(fd)


class _Timerspec(ctypes.Structure):
    """`struct itimerspec` of the plain symbols, whose time_t is a long on every Linux ABI."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


def _open_set_notifier() -> int | None:
    """A descriptor that becomes readable when the wall clock is set; None where the system has no such thing."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        fd = int(library.timerfd_create(time.CLOCK_REALTIME, _TFD_NONBLOCK_CLOEXEC))
    except AttributeError:
        return None
    if fd < 0:
        return None
    spec = _Timerspec(0, 0, _FAR, 0)
    if library.timerfd_settime(fd, _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET, ctypes.byref(spec), None) < 0:
        os.close(fd)
        return None
    return fd
