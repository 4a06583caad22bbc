"""Frames between a start and an end mark, with or without an escape byte: STX/ETX, `$...\\r\\n`, HDLC-like.

Resynchronise rule: at the next start mark. One inside a frame begins a new frame; the old one counts as bad.
"""

from __future__ import annotations

import re

from agent.triggers.serial.framing.codec import Codec, Rules, overlap


class Bracketed(Codec):
    """`start` frame `end`. With `escape` all three are one byte, and the byte after an escape is meant literally, after
    an exclusive-or with `xor` (HDLC: start and end 7E, escape 7D, xor 20; then an escaped mark aborts the frame).
    """

    def __init__(self, rules: Rules, start: bytes, end: bytes, *, escape: bytes = b"", xor: int = 0) -> None:
        super().__init__(rules)
        self._start, self._end, self._escape, self._xor = start, end, escape, xor
        marks = [re.escape(end)] if start == end else [re.escape(end), re.escape(start)]
        if escape:
            marks.insert(0, re.escape(escape) + b".")
        self._marks = re.compile(b"|".join(marks), re.DOTALL)
        self._special = re.compile(b"[" + b"".join(map(re.escape, (escape, start, end))) + b"]") if escape else None
        self._inside = False
        self._frame = bytearray()
        self._tail = b""

    @property
    def pending(self) -> bool:
        return bool(self._frame or self._tail) or (self._inside and self._start != self._end)

    def _forget(self) -> bool:
        partial = self._inside and self.pending
        self._inside, self._tail = False, b""
        self._frame.clear()
        return partial

    def _take(self, data: bytes) -> None:
        data, at = self._tail + data, 0
        for match in self._marks.finditer(data):
            self._content(data[at : match.start()])
            self._mark(match[0])
            at = match.end()
        rest = data[at:]
        keep = max(
            overlap(rest, self._start), overlap(rest, self._end), len(self._escape) and rest.endswith(self._escape)
        )
        self._tail = rest[len(rest) - keep :]
        self._content(rest[: len(rest) - keep])

    def _content(self, piece: bytes) -> None:
        if not piece:
            return
        if not self._inside:
            self.counts["bytes_skipped"] += len(piece)
        elif len(self._frame) + len(piece) > self.rules.max_frame:
            self.counts["frames_too_long"] += 1
            self._inside = False
            self._frame.clear()
        else:
            self._frame += piece

    def _mark(self, mark: bytes) -> None:
        if mark == self._end:
            self._complete()
        elif mark == self._start:
            self._begin()
        elif self._inside and self._xor and mark[1:] in (self._start, self._end):
            self._abort(mark[1:])
        else:
            self._content(bytes([mark[1] ^ self._xor]))

    def _complete(self) -> None:
        if self._inside:
            self._finish(bytes(self._frame))
            self._frame.clear()
        # One mark for both ends: it also begins the next frame.
        self._inside = self._start == self._end

    def _begin(self) -> None:
        if self._inside and self._frame:
            self.counts["frames_bad"] += 1
        self._frame.clear()
        self._inside = True

    def _abort(self, mark: bytes) -> None:
        self.counts["frames_bad"] += 1
        self._frame.clear()
        self._inside = mark == self._start

    def _wrap(self, content: bytes) -> bytes:
        if self._special:
            content = self._special.sub(self._escaped, content)
        elif self._end in content:
            raise ValueError("the reply contains the end mark and the framing has no escape")
        return self._start + content + self._end

    def _escaped(self, match: re.Match[bytes]) -> bytes:
        return self._escape + bytes([match[0][0] ^ self._xor])
