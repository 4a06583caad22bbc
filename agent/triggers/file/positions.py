"""Remembers how far each followed file was handled, by inode, so that a restart goes on at the next line.

An inode number alone proves nothing: it is used again after a delete, and a file may be truncated and written anew.
So a position also keeps hashes of the file's first bytes and of the bytes just before the offset; where those do not
fit, it is another file. The same two hashes find the copy that `copytruncate` made.

Flow: Lines tells and asks it, in the disk thread. 36 bytes a save; saves are at least 0.1 s apart.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from agent.triggers.file.ledger import hash64
from agent.triggers.file.record_log import RecordLog

RECORD = struct.Struct("<QQQQ")  # inode, offset, mark, head
MARK_BYTES = 64
HEAD_BYTES = 256
STARTED = 0
"""Inode of the record that says: the trigger has run here before."""


class Position(NamedTuple):
    """A place in one file. `mark` hashes the up to 64 bytes before `offset`, `head` the first up to 256 before it."""

    inode: int
    offset: int
    mark: int
    head: int

    def fits(self, descriptor: int) -> bool:
        """Whether the file behind the descriptor is this file, or a copy of it, at least as long."""
        return hash64(mark_bytes(descriptor, self.offset)) == self.mark and self._same_head(descriptor)

    def begins(self, descriptor: int) -> bool:
        """Whether the file, shorter than the offset, may be a copy taken a moment too early: it begins the same."""
        return 0 < os.fstat(descriptor).st_size < self.offset and self._same_head(descriptor)

    def _same_head(self, descriptor: int) -> bool:
        return hash64(os.pread(descriptor, min(HEAD_BYTES, self.offset), 0)) == self.head


def mark_bytes(descriptor: int, offset: int) -> bytes:
    """The bytes just before an offset."""
    length = min(MARK_BYTES, offset)
    return os.pread(descriptor, length, offset - length)


def position_at(descriptor: int, inode: int, offset: int) -> Position:
    """The position of a file as it is now."""
    head = os.pread(descriptor, min(HEAD_BYTES, offset), 0)
    return Position(inode, offset, hash64(mark_bytes(descriptor, offset)), hash64(head))


class Positions:
    """The positions of one trigger's files."""

    def __init__(self, path: Path) -> None:
        self._log = RecordLog(path, RECORD)
        self.fresh = self._log.fresh
        self._positions: dict[int, Position] = {}
        self._missing: set[int] = set()
        for record in self._log.replay():
            self._positions[record[0]] = Position(*record)
        self._positions.pop(STARTED, None)
        self.damaged = self._log.damaged

    def get(self, inode: int) -> Position | None:
        return self._positions.get(inode)

    def all(self) -> list[Position]:
        return list(self._positions.values())

    def put(self, positions: list[Position]) -> None:
        """Remember. Raises OSError when it cannot be written; it then holds until the end of the process."""
        self._positions.update((item.inode, item) for item in positions)
        self._log.append(positions)
        if self._log.worth_rewriting(len(self._positions) + 1):
            self._log.rewrite([Position(STARTED, 0, 0, 0), *self._positions.values()])

    def mark_started(self) -> None:
        """Say that the first walk is over. Raises OSError."""
        if self.fresh:
            self.fresh = False
            self._log.append([Position(STARTED, 0, 0, 0)])

    def keep_only(self, present: set[int]) -> None:
        """Drop the files that two whole walks running did not see. Raises OSError."""
        missing = self._positions.keys() - present
        for inode in missing & self._missing:
            del self._positions[inode]
        self._missing = missing
        self._log.sync()

    def close(self) -> None:
        self._log.close()
