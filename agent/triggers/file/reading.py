"""Looks at one candidate file: is it there, complete, new; and what event does it make?

Flow: Intake -> `Reader.look` in the disk thread -> Intake -> sink. Nothing here blocks the loop.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from agent.model.event import Event, Text
from agent.triggers.file.leases import is_being_written
from agent.triggers.file.ledger import Entry, Fate, Ledger, head_of, key_of, volume_of
from agent.triggers.file.selection import Selection
from agent.triggers.file.spec import FileSpec

NOT_FILES = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR)
"""What opening a symbolic link, a socket, a device without a driver or a directory says."""

OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: opening a pipe somebody put there would wait for its writer."""


class Nothing(Enum):
    """Why a candidate makes no event now. The values are names of counters."""

    VANISHED = "vanished"
    DENIED = "denied"
    UNREADABLE = "unreadable"
    IRREGULAR = "irregular"
    UNSETTLED = "waiting"
    OPEN = "open"


@dataclass(slots=True)
class Seen:
    """One content of one file, as it was read."""

    path: str
    key: int
    head: int
    size: int
    mtime_ns: int

    def entry(self, volume: int, fate: Fate) -> Entry:
        return Entry(volume, self.head, fate)


@dataclass(slots=True)
class Known:
    """This content was handled before; `fate` says how."""

    seen: Seen
    fate: Fate


@dataclass(slots=True)
class Fresh:
    """This content is new: here is its event."""

    seen: Seen
    event: Event


Verdict = Nothing | Known | Fresh


@dataclass(slots=True)
class Patience:
    """How sure one can be that the writer is done. `last` is the signature (key) of the look before."""

    complete: bool  # closed after writing, or moved in
    overdue: bool  # it was waited for as long as `settleMax` says
    last: int = 0
    unsettled: bool = False  # taken because it was overdue, although its writer is not done


class Reader:
    """Reads the files of one trigger, in its disk thread."""

    def __init__(self, spec: FileSpec, selection: Selection, ledger: Ledger) -> None:
        self._spec, self._selection, self._ledger = spec, selection, ledger
        self.volume = 0

    def look(self, path: str, patience: Patience) -> Verdict:
        """Judge one candidate. Sets `patience.last` and `patience.unsettled`."""
        try:
            with opened(path) as descriptor:
                return self._judge(path, descriptor, patience)
        except OSError as error:
            return _reason(error)

    def find_volume(self) -> int:
        """Look again which volume is mounted at the root. Once a walk is enough."""
        self.volume = volume_of(self._selection.root)
        return self.volume

    def _judge(self, path: str, descriptor: int, patience: Patience) -> Verdict:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Nothing.IRREGULAR
        key = key_of(status)
        head = head_of(descriptor)
        seen = Seen(path, key, head, status.st_size, status.st_mtime_ns)
        entry = self._ledger.find(key, lambda: head)
        if entry:
            return Known(seen, entry.fate)
        obstacle = self._obstacle(descriptor, status, key, patience)
        patience.last, patience.unsettled = key, obstacle is not None
        if obstacle and not patience.overdue:
            return obstacle
        return self._read(seen, descriptor, patience)

    def _obstacle(self, descriptor: int, status: os.stat_result, key: int, patience: Patience) -> Nothing | None:
        """Why the writer may not be done, if so. UNSETTLED: look again soon; OPEN: when it closes the file."""
        if not (patience.complete or patience.last == key or self._long_quiet(status)):
            return Nothing.UNSETTLED
        if not self.is_open(descriptor):
            return None
        # A close is told a moment before the file counts as closed: one that was told just now may be the last one.
        told, patience.complete = patience.complete, False
        return Nothing.UNSETTLED if told else Nothing.OPEN

    def is_open(self, descriptor: int) -> bool:
        """Somebody has the file open for writing, as far as the kernel says. Not asked of network mounts."""
        return not self._spec.poll and is_being_written(descriptor) is True

    def _long_quiet(self, status: os.stat_result) -> bool:
        """Its time stamps say that nobody has touched it lately. Not trusted on network mounts, whose clock differs."""
        age = time.time() - max(status.st_mtime, status.st_ctime)
        return not self._spec.poll and age >= self._spec.settle

    def _read(self, seen: Seen, descriptor: int, patience: Patience) -> Verdict:
        whole = self._spec.body == "content" and seen.size <= self._spec.max_file_size
        body = _content(descriptor, seen.size) if whole else os.fsencode(seen.path)
        status = os.fstat(descriptor)
        if key_of(status) != seen.key:  # written to while it was read
            patience.unsettled = True
            if not patience.overdue:
                patience.complete, patience.last = False, key_of(status)
                return Nothing.UNSETTLED
        return Fresh(seen, self._event(seen, body, whole))

    def _event(self, seen: Seen, body: bytes, whole: bool) -> Event:
        relative = as_text(self._selection.relative(seen.path))
        return Event(
            body=body,
            content_type=self._spec.content_type if whole else "",
            path=relative,
            url=as_text(seen.path),
            id=str(uuid.UUID(int=(seen.key << 64) | seen.head)),  # the same for every delivery of this content
            headers=(
                ("X-Headrace-File", as_text(os.path.basename(seen.path))),
                ("X-Headrace-Size", str(seen.size)),
                ("X-Headrace-Mtime", f"{seen.mtime_ns // 10**9}.{seen.mtime_ns % 10**9:09d}"),
                ("X-Headrace-Body", "content" if whole else "path"),
            ),
        )


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor to read from, also where a pipe, device or link lies in place of a file. Raises OSError."""
    descriptor = os.open(path, OPEN_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def as_text(path: str) -> Text:
    """The path as text, or as the bytes it is made of where those are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _content(descriptor: int, size: int) -> bytes:
    """At most `size` bytes from the start."""
    pieces = []
    place = 0
    while place < size and (piece := os.pread(descriptor, size - place, place)):
        pieces.append(piece)
        place += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _reason(error: OSError) -> Nothing:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Nothing.VANISHED
    if isinstance(error, PermissionError):
        return Nothing.DENIED
    return Nothing.IRREGULAR if error.errno in NOT_FILES else Nothing.UNREADABLE
