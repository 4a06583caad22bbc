"""Checksums against published check values, and against damage."""

import random
from typing import get_args

import pytest

from agent.triggers.serial.framing.checksum import ChecksumName, checksum

NAMES = [name for name in get_args(ChecksumName) if name != "none"]


@pytest.mark.parametrize(
    ("name", "body", "sealed"),
    [
        # Check values of the CRC catalogue for "123456789": MODBUS 4B37, CCITT-FALSE 29B1, X-25 906E.
        ("crc16-modbus", b"123456789", b"123456789\x37\x4b"),
        ("crc16-ccitt", b"123456789", b"123456789\x29\xb1"),
        ("crc16-x25", b"123456789", b"123456789\x6e\x90"),
        # A Modbus request as printed in the protocol's guide.
        ("crc16-modbus", bytes.fromhex("1103006b0003"), bytes.fromhex("1103006b00037687")),
        (
            "xor",
            b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,",
            b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
        ),
        ("xor8", b"\x01\x02\x04", b"\x01\x02\x04\x07"),
        ("sum8", b"\xff\x02", b"\xff\x02\x01"),
    ],
)
def test_known_values(name: ChecksumName, body: bytes, sealed: bytes) -> None:
    check = checksum(name)
    assert check is not None
    assert check.seal(body) == sealed
    assert check.open(sealed) == body


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_seen(name: ChecksumName) -> None:
    check = checksum(name)
    assert check is not None
    chance = random.Random(1)
    for _ in range(200):
        body = chance.randbytes(chance.randint(1, 40))
        sealed = bytearray(check.seal(body))
        assert check.open(bytes(sealed)) == body
        # From the second byte on: a first byte damaged into `$` is left out of an NMEA sum.
        sealed[chance.randrange(1, len(sealed) - 1)] ^= 1 << chance.randrange(8)
        assert check.open(bytes(sealed)) is None


@pytest.mark.parametrize("name", NAMES)
def test_short_frames_are_bad_and_not_an_error(name: ChecksumName) -> None:
    check = checksum(name)
    assert check is not None
    for length in range(check.size):
        assert check.open(b"*" * length) is None


def test_none_is_none() -> None:
    assert checksum("none") is None


def test_nmea_digits_in_lower_case() -> None:
    check = checksum("xor")
    assert check is not None
    assert check.open(b"$\x4a*4a") == b"$\x4a"
