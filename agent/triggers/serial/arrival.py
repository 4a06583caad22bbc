"""Waiting for something to appear in a folder, with inotify and without a thread.

Why not watchdog: it runs threads and walks trees, for what is here one descriptor on the event loop, open only while
a device is missing. Promise: where inotify is not to be had, `wait` is a plain time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable
from types import TracebackType

_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x4, 0x80, 0x100, 0x400
# Attributes too: udev first makes the node, then gives it to the group that may open it.
_MASK = _IN_ATTRIB | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF


class Arrivals:
    """A context manager: `watch` folders, then `wait` for a change in any of them."""

    def __enter__(self) -> Arrivals:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._changed = asyncio.Event()
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._on_change)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)

    def watch(self, folders: Iterable[str]) -> bool:
        """Watch these folders as well. False when one of them cannot be watched. Watching one again changes nothing."""
        self._changed.clear()
        if self._fd < 0:
            return False
        watches = [self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) for folder in folders]
        return all(watch >= 0 for watch in watches)

    async def wait(self, seconds: float) -> bool:
        """True once something changed since `watch`, False after `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        return self._changed.is_set()

    def _on_change(self) -> None:
        """Which change it was does not matter: the device is looked for again in any case."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65536)
        self._changed.set()
