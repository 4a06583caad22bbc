"""Query strings as Go's HTTP servers split them. Without urllib: its import costs more than a start should."""

from __future__ import annotations


def pairs_of_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """`a=1&b=x+y` as pairs: "+" is a space, %XX a byte, a broken escape stays as it is, an empty piece is skipped."""
    pairs = []
    for piece in query.split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            pairs.append((_unquoted(name), _unquoted(value)))
    return pairs


def _unquoted(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    first, *rest = text.split(b"%")
    return first + b"".join([_unescaped(piece) for piece in rest])


def _unescaped(piece: bytes) -> bytes:
    """What follows a percent sign."""
    digits = piece[:2]
    if len(digits) == 2 and digits.isalnum():
        try:
            return bytes((int(digits, 16),)) + piece[2:]
        except ValueError:
            pass
    return b"%" + piece
