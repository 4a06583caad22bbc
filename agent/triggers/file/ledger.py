"""Remembers which files were handled, so that a restart does not hand them over again.

A file is told apart by its inode, size, modification time and a hash of its first 4 KiB; not by its name (a rename is
not a new file) and not by its device number (that changes when USB disks are found in another order), but by the
volume: the file system's own id with the root's inode.

Flow: Intake and disposal ask and tell it, in their disk thread; walks ask it from theirs (reading a dict only).
Promise: what was remembered survives the end of the process at once and a power cut after `SYNC_S` seconds. Files that
vanished are dropped at the next whole walk; those of a volume that is not mounted now are kept, at most `ABSENT`.
Costs 44 bytes of disk and about 250 bytes of memory for a remembered file.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from agent.triggers.file.record_log import RecordLog

SYNC_S = 5.0
ABSENT = 10_000
HEAD_BYTES = 4096

RECORD = struct.Struct("<QQQQQ")  # key, volume, head, fate, spare
IDENTITY = struct.Struct("<QQq")


class Fate(IntEnum):
    """What became of a file."""

    HANDLED = 1
    FAILED = 2
    SEEN = 3  # was there before the first start, with `initial: new`
    STARTED = 4  # not a file: the trigger has run here before


class Entry(NamedTuple):
    """What is kept of one file."""

    volume: int
    head: int  # 0: not known, only for SEEN
    fate: Fate


def key_of(status: os.stat_result) -> int:
    """64 bits that stand for one content of one file: inode, size, modification time."""
    return hash64(IDENTITY.pack(status.st_ino, status.st_size, status.st_mtime_ns))


def hash64(data: bytes) -> int:
    """A stable 64-bit hash."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def head_of(descriptor: int) -> int:
    """Hash of a file's first bytes."""
    return hash64(os.pread(descriptor, HEAD_BYTES, 0))


def volume_of(root: str) -> int:
    """Which file system is mounted at the root, and which of its folders that is; 0 when it cannot be known."""
    try:
        return hash64(IDENTITY.pack(os.statvfs(root).f_fsid, os.stat(root).st_ino, 0))
    except OSError:
        return 0


class Ledger:
    """The remembered files of one trigger."""

    def __init__(self, path: Path) -> None:
        self._log = RecordLog(path, RECORD)
        self.fresh = self._log.fresh
        self._entries: dict[int, Entry] = {}
        self._missing: set[int] = set()  # not seen by the last whole walk
        for key, volume, head, fate, _ in self._log.replay():
            if fate != Fate.STARTED:
                self._entries.pop(key, None)
                self._entries[key] = Entry(volume, head, Fate(fate))
        self.damaged = self._log.damaged
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return len(self._entries)

    def fate(self, key: int) -> Fate | None:
        """What became of a file with this key, without opening it: enough for a walk over the tree."""
        entry = self._entries.get(key)
        return entry.fate if entry else None

    def find(self, key: int, head: Callable[[], int]) -> Entry | None:
        """The file's entry. The head decides, so that a re-used inode number is not taken for the old file."""
        entry = self._entries.get(key)
        if entry is None or entry.head not in (0, head()):
            return None
        return entry

    def add(self, items: list[tuple[int, Entry]]) -> None:
        """Remember. Raises OSError when it cannot be written; it then holds until the end of the process."""
        for key, entry in items:
            self._entries.pop(key, None)
            self._entries[key] = entry
        self._log.append((key, *entry, 0) for key, entry in items)
        if time.monotonic() - self._synced > SYNC_S:
            self.sync()

    def mark_started(self) -> None:
        """Say that the first walk is over, also when it found nothing to remember. Raises OSError."""
        if self.fresh:
            self.fresh = False
            self._log.append([(0, 0, 0, Fate.STARTED, 0)])

    def sync(self) -> None:
        """Put it on the disk. Raises OSError."""
        self._log.sync()
        self._synced = time.monotonic()

    def keep_only(self, present: set[int], volume: int) -> None:
        """Drop what two whole walks running did not see, and the oldest of other volumes above ABSENT. Raises OSError.

        One walk is not enough: a file that is renamed or handled while it goes on may be missed by it.
        """
        missing = {key for key, entry in self._entries.items() if key not in present and entry.volume == volume}
        absent = [key for key, entry in self._entries.items() if key not in present and entry.volume != volume]
        for key in [*(missing & self._missing), *absent[:-ABSENT]]:
            del self._entries[key]
        self._missing = missing
        self.sync()
        if self._log.worth_rewriting(len(self._entries)):
            started = [(0, 0, 0, Fate.STARTED, 0)]
            self._log.rewrite(started + [(key, *entry, 0) for key, entry in self._entries.items()])

    def close(self) -> None:
        self._log.close()
