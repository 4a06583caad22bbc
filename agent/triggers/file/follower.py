"""One followed file: what of it was read, handed over and handled.

Flow: Lines opens it and calls `read` in the disk thread; lines leave through `waiting`, ends come back through `done`.
The descriptor stays open over renames and deletion, so the last lines of a rotated file are read in any case.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from enum import Enum

from agent.triggers.file.ledger import hash64
from agent.triggers.file.positions import HEAD_BYTES, MARK_BYTES, Position, mark_bytes

CHUNK = 64 << 10
TRAILING_NUMBER = re.compile(r"\d+$")


@dataclass(slots=True)
class Line:
    """One line without its end. `window` are the bytes read around it, the first at offset `base`."""

    body: bytes
    start: int
    end: int
    window: bytes
    base: int
    done: bool = False


class Progress(Enum):
    """What a read came to."""

    MORE = "more"  # there may be more to read at once
    END = "end"  # everything is read
    PARTIAL = "partial"  # all but a last line without its newline
    TRUNCATED = "truncated"  # what was read before is not in the file any more


class Follower:
    """Reads one inode line by line. `read` and `close` in the disk thread, the rest on the loop."""

    def __init__(self, descriptor: int, path: str, active: str, offset: int, *, line_bytes: int) -> None:
        self.descriptor, self.path = descriptor, path
        self.active = active  # the name its lines were written under
        self.inode = os.fstat(descriptor).st_ino
        self.order: tuple[int, int]  # among those of the same active name, the lower is read first
        self.waiting: deque[Line] = deque()
        self._handed: deque[Line] = deque()
        self._line_bytes = line_bytes
        self._start_at(offset)

    def _start_at(self, offset: int) -> None:
        self.order = _order(self.descriptor, self.path, self.active)
        self._at = offset
        self._mark = mark_bytes(self.descriptor, offset)
        self._head = os.pread(self.descriptor, min(HEAD_BYTES, offset), 0)
        self._in_line = offset > 0 and self._mark[-1:] != b"\n"  # stopped inside a line
        self._handled_to, self._handled_mark = offset, self._mark

    @property
    def idle(self) -> bool:
        """Nothing of it is waiting or being handled."""
        return not self.waiting and not self._handed

    def hand(self) -> Line:
        """The next line, which then counts as being handled."""
        line = self.waiting.popleft()
        self._handed.append(line)
        return line

    def id_of(self, line: Line) -> str:
        """The same whenever this line of this file is read: by inode, place, and what the file and the line hold."""
        return f"{self.inode:x}-{line.start:x}-{hash64(self._head[: line.start]):016x}{hash64(line.body):016x}"

    def done(self, line: Line) -> bool:
        """A line is handled. True when `handled` goes forward: it only covers lines without a gap before them."""
        line.done = True
        last = None
        while self._handed and self._handed[0].done:
            last = self._handed.popleft()
        if last is None:
            return False
        end = last.end - last.base
        self._handled_to, self._handled_mark = last.end, last.window[max(0, end - MARK_BYTES) : end]
        return True

    def handled(self) -> Position:
        """The position up to which every line was handled."""
        return self._position(self._handled_to, self._handled_mark)

    def _position(self, offset: int, mark: bytes) -> Position:
        return Position(self.inode, offset, hash64(mark), hash64(self._head[:offset]))

    def at_read(self) -> Position:
        """The position behind everything that was read, handled or not."""
        return self._position(self._at, self._mark)

    def seek(self, offset: int) -> None:
        """Go on from there; only while `idle`."""
        self._start_at(offset)

    @property
    def at_end(self) -> bool:
        """Everything that is in the file was read."""
        return os.fstat(self.descriptor).st_size == self._at

    def read(self, *, finish: bool = False) -> Progress:
        """Read some lines into `waiting`. `finish`: a last line without newline counts as one. Raises OSError."""
        base = self._at - len(self._mark)
        asked = len(self._mark) + CHUNK
        window = os.pread(self.descriptor, asked, base)
        if len(window) == asked and window.find(b"\n", len(self._mark)) < 0 and self._line_bytes >= CHUNK:
            asked = len(self._mark) + self._line_bytes + 1
            window = os.pread(self.descriptor, asked, base)
        # The head is compared after the window was read: if it still fits, the window is not from a newer content.
        if window[: len(self._mark)] != self._mark or os.pread(self.descriptor, len(self._head), 0) != self._head:
            return Progress.TRUNCATED
        rest = self._split(window, base)
        if len(window) == asked:
            return Progress.MORE
        if rest and finish:
            self._take(window, base, len(window))
            return Progress.END
        return Progress.PARTIAL if rest else Progress.END

    def _split(self, window: bytes, base: int) -> int:
        """Take the whole lines out of the window; bytes of the last, unfinished one."""
        start = self._at - base
        while (end := window.find(b"\n", start)) >= 0:
            while end - start > self._line_bytes:
                start = self._take(window, base, start + self._line_bytes)
            start = self._take(window, base, end + 1)
        while len(window) - start > self._line_bytes:
            start = self._take(window, base, start + self._line_bytes)
        return len(window) - start

    def _take(self, window: bytes, base: int, end: int) -> int:
        """One line, from where the last one ended to `end` in the window."""
        start = self._at - base
        body = window[start:end]
        ended = body.endswith(b"\n")
        if ended:
            body = body[:-2] if body.endswith(b"\r\n") else body[:-1]
        if body or not self._in_line:  # the newline of a line that was handed over without it is no line
            self.waiting.append(Line(body, self._at, base + end, window, base))
        self._in_line = not ended
        if self._at < HEAD_BYTES and len(self._head) == self._at:
            self._head += window[start : start + HEAD_BYTES - self._at][: end - start]
        self._at = base + end
        self._mark = window[max(0, end - MARK_BYTES) : end]
        return end

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _order(descriptor: int, path: str, active: str) -> tuple[int, int]:
    """By the time of the last write; within one tick of the clock, app.log.2 before app.log.1 before app.log."""
    number = TRAILING_NUMBER.search(path) if path != active else None
    return os.fstat(descriptor).st_mtime_ns, -int(number[0]) if number else 0
