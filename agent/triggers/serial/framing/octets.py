r"""Bytes as people write them in a file: text with escapes, hex, or one number.

Flow: `delimiter`, `start`, `sync` and the like in a function.yaml -> `octets` -> the codecs.
Promise: `"\r\n"` and `'\r\n'` (YAML unescapes the first, not the second) mean the same two bytes.
"""

from __future__ import annotations

import re

Octets = str | int
"""Text with escapes, `"0x0d0a"`, or a number below 256 for one byte (YAML reads a bare 0x7e as a number)."""

_SIMPLE = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", "e": b"\x1b", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.|$)", re.DOTALL)


def octets(value: Octets, key: str) -> bytes:
    """The bytes that `value` stands for, at least one. Raises ValueError that names `key` and how to mend it."""
    if isinstance(value, int):
        return _one_byte(value, key)
    found = _hex(value[2:], key) if value[:2] in ("0x", "0X") else _unescape(value, key)
    if not found:
        raise ValueError(f"`{key}` is empty; give at least one byte, such as '\\n' or '0x0a'")
    return found


def one_octet(value: Octets, key: str) -> int:
    """The one byte that `value` stands for, as a number. Raises ValueError."""
    found = octets(value, key)
    if len(found) != 1:
        raise ValueError(f"`{key}` is {len(found)} bytes; it must be exactly one")
    return found[0]


def _one_byte(value: int, key: str) -> bytes:
    if not 0 <= value <= 255:
        raise ValueError(f"`{key}` is the number {value}; write several bytes as quoted hex, such as '0x0d0a'")
    return bytes([value])


def _hex(digits: str, key: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"`{key}` is not hex; write two digits a byte, such as '0x0d0a'") from None


def _unescape(text: str, key: str) -> bytes:
    out, at = bytearray(), 0
    for match in _ESCAPE.finditer(text):
        out += text[at : match.start()].encode()
        out += _escaped(match[1], key)
        at = match.end()
    return bytes(out + text[at:].encode())


def _escaped(name: str, key: str) -> bytes:
    if len(name) == 3:
        return bytes.fromhex(name[1:])
    try:
        return _SIMPLE[name]
    except KeyError:
        raise ValueError(f"`{key}` has the unknown escape '\\{name}'; use \\n \\r \\t \\0 \\e \\\\ or \\xHH") from None
