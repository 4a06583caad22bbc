"""Frames whose length is known before their end: always the same, or named by a field in their header.

Resynchronise rule: an impossible length costs one byte, and the search (for the sync bytes, where there are some) goes
on at the next; a wrong checksum costs the whole frame; a silence of `frameTimeout` drops what is incomplete, which is
the only way back for a line without sync bytes. Without sync bytes and checksum, noise can look like a frame.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from agent.triggers.serial.framing.codec import Codec, Rules, overlap


class Sized(Codec):
    """Frames that start with `sync` (may be empty) and whose first `header` bytes tell how long they are."""

    def __init__(self, rules: Rules, header: int, sync: bytes = b"", strip: int = 0) -> None:
        super().__init__(rules)
        self._header = max(header, len(sync))
        self._sync = sync
        self._strip = strip
        self._buffer = bytearray()
        self._searching = False

    @abstractmethod
    def _total(self, start: int) -> int:
        """Bytes of the frame at `start` of the buffer, all included. Its header is there."""

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def _forget(self) -> bool:
        partial = bool(self._buffer)
        self._buffer.clear()
        self._searching = False
        return partial

    def _take(self, data: bytes) -> None:
        self._buffer += data
        start = self._aligned(0)
        while len(self._buffer) - start >= self._header:
            total = self._total(start)
            if not self._header <= total <= self.rules.max_frame:
                self._lost("frames_bad" if total < self._header else "frames_too_long")
                start = self._aligned(start + 1)
                continue
            if len(self._buffer) - start < total:
                break
            self._searching = False
            self._finish(bytes(self._buffer[start : start + total]), strip=self._strip)
            start = self._aligned(start + total)
        del self._buffer[:start]

    def _aligned(self, start: int) -> int:
        """The first place at or after `start` where a frame may begin."""
        if not self._sync:
            return start
        found = self._buffer.find(self._sync, start)
        if found < 0:
            # At the end of a call the beginning of the sync bytes may be there; no frame can begin before it.
            found = max(start, len(self._buffer) - overlap(self._buffer, self._sync))
        if found > start:
            self.counts["bytes_skipped"] += found - start
        return found

    def _lost(self, what: str) -> None:
        """Count once for each time the border is lost, not once for each byte of the search."""
        self.counts["bytes_skipped"] += 1
        if not self._searching:
            self._searching = True
            self.counts[what] += 1


class Fixed(Sized):
    """Frames of `length` bytes, checksum included."""

    def __init__(self, rules: Rules, length: int, sync: bytes = b"") -> None:
        super().__init__(rules, header=length, sync=sync)

    def _total(self, start: int) -> int:
        return self._header

    def _wrap(self, content: bytes) -> bytes:
        if len(content) != self._header:
            raise ValueError(
                f"a reply of {len(content)} bytes with its checksum; the framing is fixed at {self._header}"
            )
        return content


class LengthField(Sized):
    """A field of `width` bytes at `offset` says how many bytes follow it, or with `includes_header` how many there are
    in all; `adjustment` is added to what it says. The frame given on is all of it, or with `strip_header` what follows
    the field. A reply has the same form, and its field is filled in here.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        offset: int = 0,
        width: int = 2,
        endian: Literal["little", "big"] = "big",
        adjustment: int = 0,
        includes_header: bool = False,
        sync: bytes = b"",
        strip_header: bool = False,
    ) -> None:
        header = offset + width
        super().__init__(rules, header, sync, strip=header if strip_header else 0)
        self._field = slice(offset, header)
        self._endian = endian
        self._extra = adjustment + (0 if includes_header else header)

    def _total(self, start: int) -> int:
        field = self._buffer[start + self._field.start : start + self._field.stop]
        return int.from_bytes(field, self._endian) + self._extra

    def encode(self, body: bytes) -> bytes:
        checksum = self.rules.checksum
        whole = bytearray(bytes(self._strip) + body)
        if len(whole) < self._header:
            raise ValueError(f"a reply of {len(whole)} bytes is shorter than the header of {self._header}")
        whole[: len(self._sync)] = self._sync
        total = len(whole) + (checksum.size if checksum else 0)
        whole[self._field] = self._length(total)
        return checksum.seal(bytes(whole)) if checksum else bytes(whole)

    def _length(self, total: int) -> bytes:
        try:
            return (total - self._extra).to_bytes(self._field.stop - self._field.start, self._endian)
        except OverflowError:
            raise ValueError(f"a reply of {total} bytes does not fit the length field") from None

    def _wrap(self, content: bytes) -> bytes:
        return content
