"""Kernel notifications without polling: the smallest part of watchdog that does the work.

Why not `watchdog.observers.Observer`: it runs three threads a watch, asks for every kind of event (six for one written
file), says nothing when the kernel's queue overflows, and holds back moves for half a second. Its reader, `InotifyFD`,
is one thread that blocks in poll(2) without a timeout; this subclass takes over the raw events from there.

Flow: kernel -> reader thread -> `wake` (once for many events) -> the loop calls `take`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable

from watchdog.observers.inotify_c import InotifyConstants as Flag
from watchdog.observers.inotify_c import (
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)

from agent.model.errors import SourceUnavailable

GATHER_S = 0.002
"""After a batch the reader waits this long, so that a writer of many small pieces costs a few wakes, not thousands."""

COMPLETE = Flag.IN_CLOSE_WRITE | Flag.IN_MOVED_TO
CHANGING = Flag.IN_CREATE | Flag.IN_MODIFY
LOST = Flag.IN_DELETE_SELF | Flag.IN_MOVE_SELF | Flag.IN_UNMOUNT | Flag.IN_IGNORED

FOR_TREES = Mask(COMPLETE | CHANGING | Flag.IN_MOVED_FROM | Flag.IN_DELETE_SELF | Flag.IN_MOVE_SELF | Flag.IN_ONLYDIR)
FOR_PARENTS = Mask(Flag.IN_CREATE | Flag.IN_MOVED_TO | Flag.IN_DELETE_SELF | Flag.IN_MOVE_SELF | Flag.IN_ONLYDIR)

Pending = dict[tuple[int, bytes], int]
"""Flags seen, by watch and name, in the order of the first. Of COMPLETE only what was still true at the last event."""


class Inotify(InotifyFD):
    """One inotify instance and its reader thread. `wake` is called from that thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake
        self._merging = threading.Lock()
        self._pending: Pending = {}

    @classmethod
    def _create_inotify_fd(cls) -> int:
        descriptor: int = super()._create_inotify_fd()
        os.set_inheritable(descriptor, False)  # watchdog's would leak into every worker
        return descriptor

    def run(self) -> None:
        """The reader thread."""
        while self.should_keep_running():
            events = self.read_events()
            if events:
                self._merge(events)
                self.stopped_event.wait(GATHER_S)

    def _merge(self, events: list[InotifyEvent]) -> None:
        with self._merging:
            idle = not self._pending
            for event in events:
                key = (event.wd, event.name)
                before = self._pending.get(key, 0)
                if event.mask & CHANGING:
                    before &= ~COMPLETE
                self._pending[key] = before | event.mask
        if idle:
            self._wake()

    def take(self) -> Pending:
        """What happened since the last call."""
        with self._merging:
            taken, self._pending = self._pending, {}
        return taken

    def watch(self, directory: str, mask: Mask) -> int:
        """Watch a directory, or change what it is watched for; the watch's number. Raises OSError."""
        number: int = inotify_add_watch(self._inotify_fd, os.fsencode(directory), mask)
        if number == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), directory)
        return number

    def forget(self, number: int) -> None:
        """End one watch; one that the kernel has ended already is no error."""
        inotify_rm_watch(self._inotify_fd, WatchDescriptor(number))


def open_inotify(wake: Callable[[], None]) -> Inotify:
    """Start a reader. Raises SourceUnavailable when the machine's limit on inotify instances is reached."""
    try:
        inotify = Inotify(wake)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise SourceUnavailable(
            "no more inotify instances (fs.inotify.max_user_instances), or no more open files",
            fix="sysctl -w fs.inotify.max_user_instances=1024 (and keep it in /etc/sysctl.d), or set `poll: true`",
        ) from error
    inotify.start()
    return inotify


def close_inotify(inotify: Inotify) -> None:
    """Stop the reader and give its descriptors back before returning."""
    inotify.stop()
    inotify.join()
