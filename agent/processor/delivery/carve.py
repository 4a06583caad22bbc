"""Rows out of a damaged write-ahead log, page by page.

Why: SQLite reads its log up to the first frame whose checksum does not fit, and takes that for the end. After a power
cut it is the end. When a bit has flipped in the middle, all later commits vanish without an error, and those are what
events were acknowledged on.
Flow: recovery -> [carve] -> rows that a sound database then gets.
Promise: only rows whose own checksum fits, or whose shape leaves no doubt. An event that was finished meanwhile may be
among them: at least once.

Formats: https://www.sqlite.org/fileformat2.html (the log, table leaf pages, records).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from agent.processor.delivery.codec import Damaged, decode_event, opened
from agent.processor.delivery.schema import PAGE_BYTES

_HEADER, _FRAME = 32, 24
_LEAF = 0x0D
_LOCAL_MOST = PAGE_BYTES - 35
_LOCAL_LEAST = (PAGE_BYTES - 12) * 32 // 255 - 23
_LONGEST = 1 << 31

Row = tuple[Any, ...]


@dataclass(slots=True)
class Leftovers:
    """What SQLite does not see. `commits`: how many there are behind the log's valid part."""

    commits: int = 0
    rows: dict[str, list[Row]] = field(default_factory=dict)


def leftovers(log: bytes, valid: int) -> Leftovers:
    """Rows in the frames after the first `valid` ones.

    One commit there: the power went before it was on the disk, and nothing was acknowledged on it. More: damage.
    """
    frames = list(_frames(log))
    salt = _salt(log, frames)
    behind = [(page, commit, body) for page, commit, mark, body in frames[valid:] if mark == salt and page]
    commits = sum(commit != 0 for _, commit, _ in behind)
    if not commits:
        return Leftovers()
    pages = {page: body for page, _, mark, body in frames[:valid] if mark == salt}
    newest = {page: body for page, _, body in behind}
    found = Leftovers(commits)
    for page, body in newest.items():
        for rowid, payload in _cells(body, page, pages | newest):
            table, row = _identify(rowid, payload)
            if table:
                found.rows.setdefault(table, []).append(row)
    return found


def _frames(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Page number, pages after the commit (0: not a commit), salt, page."""
    for at in range(_HEADER, len(data) - _FRAME - PAGE_BYTES + 1, _FRAME + PAGE_BYTES):
        head = data[at : at + _FRAME]
        body = data[at + _FRAME : at + _FRAME + PAGE_BYTES]
        yield int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big"), head[8:16], body


def _salt(log: bytes, frames: list[tuple[int, int, bytes, bytes]]) -> bytes:
    """What the frames of this log have in common: it begins anew at its start, with another salt each time, over frames
    of the time before. Where its head is damaged, the first two neighbours that agree have it.
    """
    if _head_is_sound(log):
        return log[16:24]
    return next((one[2] for one, other in pairwise(frames) if one[2] == other[2]), b"")


def _head_is_sound(log: bytes) -> bool:
    """By its own checksum."""
    order: Literal["big", "little"] = "big" if log[3:4] and log[3] & 1 else "little"
    words = [int.from_bytes(log[at : at + 4], order) for at in range(0, 24, 4)]
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = one + first + two & 0xFFFFFFFF
        two = two + second + one & 0xFFFFFFFF
    return log[24:32] == one.to_bytes(4, "big") + two.to_bytes(4, "big")


def _cells(body: bytes, page: int, pages: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Row number and record of every cell of a table leaf page that can be followed."""
    start = 100 if page == 1 else 0
    if body[start] != _LEAF:
        return
    count = int.from_bytes(body[start + 3 : start + 5], "big")
    for index in range(min(count, PAGE_BYTES // 4)):
        pointer = start + 8 + 2 * index
        at = int.from_bytes(body[pointer : pointer + 2], "big")
        try:
            size, at = _varint(body, at)
            rowid, at = _varint(body, at)
            if size > _LONGEST:
                continue
            payload = _payload(body, at, size, pages)
        except (IndexError, KeyError):
            continue
        if len(payload) == size:
            yield rowid, payload


def _payload(body: bytes, at: int, size: int, pages: dict[int, bytes]) -> bytes:
    if size <= _LOCAL_MOST:
        return body[at : at + size]
    local = _LOCAL_LEAST + (size - _LOCAL_LEAST) % (PAGE_BYTES - 4)
    if local > _LOCAL_MOST:
        local = _LOCAL_LEAST
    pieces = [body[at : at + local]]
    following = int.from_bytes(body[at + local : at + local + 4], "big")
    left = size - local
    while left > 0:
        overflow = pages[following]
        pieces.append(overflow[4 : 4 + min(left, PAGE_BYTES - 4)])
        following = int.from_bytes(overflow[:4], "big")
        left -= PAGE_BYTES - 4
    return b"".join(pieces)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _values(record: bytes) -> list[Any]:
    """The columns of a record. Raises IndexError, UnicodeDecodeError, ValueError for what is none."""
    head, at = _varint(record, 0)
    kinds = []
    while at < head:
        kind, at = _varint(record, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        value, at = _value(record, at, kind)
        values.append(value)
    if at != len(record):
        raise ValueError("length")
    return values


def _value(record: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind in (7, 10, 11):
        raise ValueError("no column of ours")
    size = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}.get(kind, (kind - 12) // 2)
    raw = record[at : at + size]
    if len(raw) != size:
        raise IndexError
    if kind < 7:
        return int.from_bytes(raw, "big", signed=True), at + size
    return (raw if kind % 2 == 0 else raw.decode()), at + size


def _identify(rowid: int, payload: bytes) -> tuple[str, Row]:
    """The table a record can only be of, and the row; "" when it is none of ours."""
    try:
        values = _values(payload)
        if not values or values[0] is not None:  # the number of the row stands outside of the record
            return "", ()
        row = (rowid, *values[1:])
        match values:
            case [None, int(), None | bytes(), bytes(event)] if _is_event(event):
                return "journal", row
            case [None, int(), bytes(marks), None | bytes()] if marks and len(marks) % 16 == 0:
                return "finished", row
            case [None, int(), str(), *_, bytes(event)] if len(values) == 13 and _is_event(event):
                return "dead_letters", row
            case [None, str()]:
                return "triggers", row
            case [None, str(), int()]:
                return "outbox_targets", row
            case [None, int(), int(), int(), str(), bytes(message)]:
                opened(message)
                return "outbox", row
    except (IndexError, ValueError, Damaged):
        pass
    return "", ()


def _is_event(record: bytes) -> bool:
    try:
        decode_event(record)
    except (Damaged, TypeError, ValueError):
        return False
    return True
