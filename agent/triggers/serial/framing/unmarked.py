"""Frames without any mark: silence between them (Modbus RTU), or whatever one read gives.

Resynchronise rule: at the next silence. Silence is measured when bytes reach user space: a USB adapter hands them over
in pieces up to 16 ms apart (1 to 2 ms in low-latency mode), so a gap under 5 ms is not reliable there.
"""

from __future__ import annotations

from agent.triggers.serial.framing.codec import Codec, Rules


class IdleGap(Codec):
    """Everything between two silences; the reader knows how long a silence is, and calls `silence`."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._buffer = bytearray()
        self._skipping = False

    @property
    def pending(self) -> bool:
        return bool(self._buffer) or self._skipping

    def _take(self, data: bytes) -> None:
        if self._skipping:
            return
        if len(self._buffer) + len(data) > self.rules.max_frame:
            self.counts["frames_too_long"] += 1
            self._skipping = True
            self._buffer.clear()
        else:
            self._buffer += data

    def silence(self) -> list[bytes]:
        if self._buffer:
            self._finish(bytes(self._buffer))
        self._forget()
        return self._finished()

    def _forget(self) -> bool:
        partial = bool(self._buffer)
        self._buffer.clear()
        self._skipping = False
        return partial

    def _wrap(self, content: bytes) -> bytes:
        return content


class Raw(Codec):
    """Bytes as they come, at most `max_frame` at once. Where the pieces end means nothing."""

    @property
    def pending(self) -> bool:
        return False

    def _take(self, data: bytes) -> None:
        step = self.rules.max_frame
        for at in range(0, len(data), step):
            self._finish(data[at : at + step])

    def _forget(self) -> bool:
        return False

    def _wrap(self, content: bytes) -> bytes:
        return content
