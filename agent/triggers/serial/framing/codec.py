"""What every framing has in common: limits, checksum, counters.

Why: a serial line is a stream of bytes with no borders; a function wants whole messages.
Flow: port -> `feed` (and `silence` when nothing came for a while) -> frames -> events; a reply -> `encode` -> port.
Promise: no I/O and no clock; how the bytes are split over calls never changes the frames; time is linear in the
bytes fed and memory is bounded by `max_frame`. Whatever is dropped is in `counts`. An empty frame is no frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

from agent.triggers.serial.framing.checksum import Checksum


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits and checks that hold for any framing. `max_frame` counts the checksum, not delimiters or escapes."""

    max_frame: int = 65536
    checksum: Checksum | None = None
    keep_checksum: bool = False


class Codec(ABC):
    """Bytes of a line into frames, and a reply into bytes of the line.

    `counts` may hold: frames_bad (wrong checksum, escape or length), frames_too_long, frames_partial (cut short by
    silence or by the loss of the port), bytes_skipped (noise between frames). The reader takes and clears it.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.counts: Counter[str] = Counter()
        self._frames: list[bytes] = []

    @property
    @abstractmethod
    def pending(self) -> bool:
        """A frame has begun and is not complete: silence would mean something."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Work through `data`; hand every complete frame to `_finish`."""

    @abstractmethod
    def _forget(self) -> bool:
        """Drop what is not complete. True when that was part of a frame."""

    @abstractmethod
    def _wrap(self, content: bytes) -> bytes:
        """`content` as it goes over the line. Raises ValueError when this framing cannot carry it."""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order."""
        self._take(data)
        return self._finished()

    def silence(self) -> list[bytes]:
        """Nothing came for the time-out: what is incomplete is dropped (an idle-gap frame is complete now)."""
        self.drop_partial()
        return []

    def drop_partial(self) -> None:
        """Drop and count what is incomplete."""
        if self._forget():
            self.counts["frames_partial"] += 1

    def restart(self) -> None:
        """The port is gone: what comes next has nothing to do with what came before."""
        self.drop_partial()

    def encode(self, body: bytes) -> bytes:
        """`body` with checksum and borders. Raises ValueError when this framing cannot carry it."""
        return self._wrap(self.rules.checksum.seal(body) if self.rules.checksum else body)

    def _finished(self) -> list[bytes]:
        frames, self._frames = self._frames, []
        return frames

    def _finish(self, content: bytes, strip: int = 0, suffix: bytes = b"") -> None:
        """Check one frame and keep it, without its first `strip` bytes and with `suffix`."""
        if len(content) > self.rules.max_frame:
            self.counts["frames_too_long"] += 1
            return
        body = self._checked(content)
        if body is None:
            self.counts["frames_bad"] += 1
        elif len(body) > strip:
            self._frames.append(body[strip:] + suffix)

    def _checked(self, content: bytes) -> bytes | None:
        checksum = self.rules.checksum
        if checksum is None or not content:
            return content
        body = checksum.open(content)
        return content if self.rules.keep_checksum and body is not None else body


def overlap(data: bytes | bytearray, token: bytes) -> int:
    """How many of the last bytes of `data` may be the beginning of `token` (less than all of it)."""
    for length in range(min(len(token) - 1, len(data)), 0, -1):
        if data.endswith(token[:length]):
            return length
    return 0
