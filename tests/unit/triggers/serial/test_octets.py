"""Bytes written as text, hex or a number."""

import pytest

from agent.triggers.serial.framing.octets import octets, one_octet


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\r\n", b"\r\n"),
        ("\r\n", b"\r\n"),
        (";", b";"),
        (r"\x02", b"\x02"),
        (r"\\n", b"\\n"),
        (r"\0\e\t", b"\0\x1b\t"),
        ("0x0d0a", b"\r\n"),
        ("0X7E", b"~"),
        ("0x0d 0a", b"\r\n"),
        (0x7E, b"~"),
        (0, b"\0"),
        ("ü", "ü".encode()),
    ],
)
def test_what_is_meant(written: str | int, meant: bytes) -> None:
    assert octets(written, "delimiter") == meant


@pytest.mark.parametrize("written", ["", r"\q", "\\", r"\x0", "0x", "0x1", "0xzz", 256, -1, 0x0D0A])
def test_what_cannot_be_meant_names_the_key(written: str | int) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        octets(written, "delimiter")


def test_one_byte_only() -> None:
    assert one_octet("0x7d", "escape") == 0x7D
    with pytest.raises(ValueError, match="exactly one"):
        one_octet("ab", "escape")
