"""Checksums at the end of a frame: taken off and compared on the way in, put on a reply on the way out.

Flow: codec cuts a frame -> `open` -> body, or None when the sum is wrong (the codec counts and drops it).
Promise: pure, linear, and `open(seal(body)) == body`.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Literal, Protocol

ChecksumName = Literal["none", "crc16-modbus", "crc16-ccitt", "crc16-x25", "xor", "xor8", "sum8"]


class Checksum(Protocol):
    """What a codec needs of a checksum. `size` is the number of bytes it adds to a frame."""

    @property
    def size(self) -> int: ...

    def open(self, frame: bytes) -> bytes | None:
        """`frame` without its checksum, or None when it is missing or wrong."""

    def seal(self, body: bytes) -> bytes:
        """`body` with its checksum."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """A checksum of `size` bytes after the body."""

    size: int
    order: Literal["little", "big"]
    compute: Callable[[bytes], int]

    def open(self, frame: bytes) -> bytes | None:
        if len(frame) < self.size:
            return None
        body, found = frame[: -self.size], frame[-self.size :]
        return body if int.from_bytes(found, self.order) == self.compute(body) else None

    def seal(self, body: bytes) -> bytes:
        return body + self.compute(body).to_bytes(self.size, self.order)


@dataclass(frozen=True, slots=True)
class Nmea:
    """NMEA 0183: `*` and two hex digits, the exclusive-or of every character after a leading `$` or `!`."""

    size: int = 3

    def open(self, frame: bytes) -> bytes | None:
        body, star, digits = frame[:-3], frame[-3:-2], frame[-2:]
        return body if star == b"*" and digits.upper() == self._digits(body) else None

    def seal(self, body: bytes) -> bytes:
        return b"%b*%b" % (body, self._digits(body))

    @staticmethod
    def _digits(body: bytes) -> bytes:
        return b"%02X" % _xor(body[1:] if body[:1] in (b"$", b"!") else body)


def checksum(name: ChecksumName) -> Checksum | None:
    """The checksum of that name; None for "none"."""
    return _CHECKSUMS[name]


def _xor(body: bytes) -> int:
    return reduce(xor, body, 0)


def _reflected_table(polynomial: int) -> tuple[int, ...]:
    def entry(crc: int) -> int:
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
        return crc

    return tuple(map(entry, range(256)))


_MODBUS = _reflected_table(0xA001)
_X25 = _reflected_table(0x8408)


def _reflected(table: tuple[int, ...], body: bytes) -> int:
    crc = 0xFFFF
    for byte in body:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


_CHECKSUMS: dict[ChecksumName, Checksum | None] = {
    "none": None,
    "crc16-modbus": Trailer(2, "little", lambda body: _reflected(_MODBUS, body)),
    "crc16-ccitt": Trailer(2, "big", lambda body: binascii.crc_hqx(body, 0xFFFF)),
    "crc16-x25": Trailer(2, "little", lambda body: _reflected(_X25, body) ^ 0xFFFF),
    "xor": Nmea(),
    "xor8": Trailer(1, "big", _xor),
    "sum8": Trailer(1, "big", lambda body: sum(body) & 0xFF),
}
