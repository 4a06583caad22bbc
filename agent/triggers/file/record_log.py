"""A file of small records that only grows: what a trigger remembers across restarts and crashes.

Why not SQLite: it writes whole pages; here an event costs 40-odd bytes, and the kernel gathers many of them into one
block before it goes to the SD card. Why no fsync per record: what is written survives the end of the process in any
case; `sync` is for power cuts, and the owner calls it seldom.

Promise: a torn or damaged record is skipped and never keeps the trigger from starting; the file is written anew
(temporary name, fsync, rename) once most of it is out of date, so it stays below about three times what it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.model.errors import SourceUnavailable

CHECKSUM = struct.Struct("<I")
COMPACT_ABOVE = 64 << 10
"""Bytes below which the file is not worth writing anew."""


class RecordLog:
    """Fixed-size records of one `struct` format in one file. Not thread-safe: one thread at a time."""

    def __init__(self, path: Path, layout: struct.Struct) -> None:
        self._path, self._layout = path, layout
        self._step = layout.size + CHECKSUM.size
        self._lock = _locked(path.with_suffix(".lock"))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._unsynced = False
        self._torn = False  # a part of a record stands at the end
        self.damaged = 0
        self.fresh = self._size == 0  # nothing was ever remembered here

    def replay(self) -> Iterator[tuple[Any, ...]]:
        """Every good record, oldest first. Cuts a torn end off, so that new records stay aligned."""
        with open(self._path, "rb") as stored:
            while len(raw := stored.read(self._step)) == self._step:
                body, (checksum,) = raw[: self._layout.size], CHECKSUM.unpack(raw[self._layout.size :])
                if zlib.crc32(body) == checksum:
                    yield self._layout.unpack(body)
                else:
                    self.damaged += 1
        self._size -= self._size % self._step
        self._cut()

    def append(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Write records, so that they survive the process: all, or none and OSError (disk full, read-only)."""
        data = b"".join(map(self._packed, records))
        if not data:
            return
        if self._torn:
            self._cut()
        try:
            _write_all(self._file, data)
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self._size += len(data)
        self._unsynced = True

    def _cut(self) -> None:
        """Back to the records that were written whole, so that the next ones stay aligned."""
        os.ftruncate(self._file, self._size)
        self._torn = False

    def sync(self) -> None:
        """Put what was written on the disk, for power cuts."""
        if self._unsynced:
            os.fdatasync(self._file)
            self._unsynced = False

    def worth_rewriting(self, live: int) -> bool:
        """Whether less than a third of the file is still true, given the number of records that are."""
        return self._size > COMPACT_ABOVE and self._size > 3 * live * self._step

    def rewrite(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Replace the content, atomically. Raises OSError and leaves the old file."""
        temporary = self._path.with_suffix(".new")
        fresh = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = _write_all(fresh, b"".join(map(self._packed, records)))
            os.fsync(fresh)
            os.rename(temporary, self._path)
        except OSError:
            os.close(fresh)
            temporary.unlink(missing_ok=True)  # on a full disk, its room is needed
            raise
        os.close(self._file)
        self._file, self._size, self._unsynced, self._torn = fresh, size, False, False

    def close(self) -> None:
        """Sync as far as possible and close."""
        with contextlib.suppress(OSError):
            self.sync()
        os.close(self._file)
        os.close(self._lock)

    def _packed(self, record: tuple[Any, ...]) -> bytes:
        body = self._layout.pack(*record)
        return body + CHECKSUM.pack(zlib.crc32(body))


def _write_all(descriptor: int, data: bytes) -> int:
    """Write until nothing is left: a disk that fills takes a part and says so only at the next call. The bytes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


def _locked(path: Path) -> int:
    """An exclusive lock that ends with the process: two versions of a function must not share one memory."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SourceUnavailable(
            "another process still uses this trigger's state", where=str(path), fix="it is tried again"
        ) from error
    return lock
