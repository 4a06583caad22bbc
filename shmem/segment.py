"""Segments: made by a processor, named after it, swept when it is gone.

A name is `headrace-<pid>-<start time of that pid>-<number>`: with the start time a pid that was given to another
process later is not mistaken for the owner. Bodies in segments of their own add `-e<id>` or `-r<id>` to it.
"""

from __future__ import annotations

import errno
import itertools
import os
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

PREFIX = "headrace-"
FOLDER = Path("/dev/shm")

_numbers = itertools.count()


class _NoTracker:
    """Stands in for multiprocessing's resource tracker: a helper process per user of shared memory, which removes
    segments that others still use. Our segments have one owner, and a sweep.
    """

    @staticmethod
    def register(name: str, kind: str) -> None: ...

    @staticmethod
    def unregister(name: str, kind: str) -> None: ...


def start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of that process, as text; None when there is none (or a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]


class Segment:
    """A shared-memory segment that this process owns, its pages allocated. `close` unlinks it and what hangs on it."""

    def __init__(self, size: int) -> None:
        """Raises OSError (ENOSPC) with a text that says how much is needed when /dev/shm has no room."""
        pid = os.getpid()
        self.name = f"{PREFIX}{pid}-{start_time(pid)}-{next(_numbers)}"
        self._memory = _create(self.name, size)
        try:
            # Without this a full /dev/shm shows as SIGBUS at the first store instead of as an error here.
            os.posix_fallocate(_descriptor(self._memory), 0, size)
        except OSError as error:
            self.close()
            if error.errno == errno.ENOSPC:
                free = os.statvfs(FOLDER).f_bavail * os.statvfs(FOLDER).f_frsize
                text = f"{FOLDER} has {free} bytes free, the channel needs {size}: enlarge it or lower ringBytes"
                raise OSError(errno.ENOSPC, text) from error
            raise

    @property
    def buffer(self) -> memoryview:
        """The whole segment, writable."""
        buffer = self._memory.buf
        if buffer is None:
            raise ValueError("the segment is closed")
        return buffer

    def give_to(self, uid: int, gid: int) -> None:
        """Let that user open it, and nobody else but root. Raises OSError when we are not root."""
        os.fchown(_descriptor(self._memory), uid, gid)

    def close(self) -> None:
        """Unmap and unlink, with the large bodies nobody took. What uses `buffer` must be closed before."""
        self._memory.close()
        for path in [*FOLDER.glob(f"{self.name}-*"), FOLDER / self.name]:
            path.unlink(missing_ok=True)


def _create(name: str, size: int) -> shared_memory.SharedMemory:
    module: Any = shared_memory
    tracker = module.resource_tracker
    module.resource_tracker = _NoTracker  # 3.13 has track=False; 3.11 and 3.12 have no such switch
    try:
        return shared_memory.SharedMemory(name, create=True, size=size)
    finally:
        module.resource_tracker = tracker


def _descriptor(memory: Any) -> int:
    return int(memory._fd)


def sweep() -> list[str]:
    """Remove the segments of processors that are gone. Returns their names."""
    removed = []
    for path in FOLDER.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).split("-")
        if len(owner) < 3 or not (owner[0].isascii() and owner[0].isdecimal()):
            continue
        if start_time(int(owner[0])) == owner[1]:
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue  # another user's, or no segment at all: any user may put any name there
        removed.append(path.name)
    return removed
