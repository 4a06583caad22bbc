"""Dead letters: events whose last attempt has failed, with the reason, kept for people to look at and to send again.

Flow: commits -> [letters] -> the table `dead_letters`; `headrace dead-letters` reads and marks it, from another process
if the function runs. What that process wants handled again it marks with `replay`; the processor that owns the store
does the handling and removes the letter when it has succeeded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.processor.delivery.group import Caps, Group

_INSERT = """INSERT INTO dead_letters(at, trigger, size, attempts, received_ns, failed_ns, result, status, reason, mark,
    event) VALUES(?,?,?,?,?,?,?,?,?,?,?)"""
_UPDATE = """UPDATE dead_letters SET replay = 0, attempts = ?, failed_ns = ?, result = ?, status = ?, reason = ?
    WHERE id = ?"""
_HEAD = "id, trigger, size, attempts, received_ns, failed_ns, result, status, reason, replay"


class Dropped(NamedTuple):
    """Dead letters that had to go to keep the bounds, by the bound."""

    over_count: int = 0
    over_size: int = 0
    too_old: int = 0


class Replay(NamedTuple):
    """One dead letter that somebody wants handled again."""

    id: int
    trigger: str
    attempts: int
    mark: bytes | None
    event: bytes


class Head(NamedTuple):
    """A dead letter without its event. Times in nanoseconds since 1970; `replay` 1: it will be handled again."""

    id: int
    trigger: str
    size: int
    attempts: int
    received_ns: int
    failed_ns: int
    result: str
    status: int
    reason: str
    replay: int


def write(database: sqlite3.Connection, group: Group, at: int) -> dict[str, Dropped]:
    """A commit's part of the dead letters, in its transaction; what had to go for it, by trigger."""
    for letter, _ in group.letters:
        values = (at, letter.trigger, len(letter.event), letter.attempts, letter.received_ns, letter.failed_ns)
        database.execute(_INSERT, (*values, letter.result, letter.status, letter.reason, letter.mark, letter.event))
    database.executemany("DELETE FROM dead_letters WHERE id = ?", [(id,) for id in group.settled])
    database.executemany(_UPDATE, group.returned)
    caps = {letter.trigger: caps for letter, caps in group.letters}
    return {name: _cap(database, name, item, at) for name, item in caps.items()}


def _cap(database: sqlite3.Connection, name: str, caps: Caps, at: int) -> Dropped:
    """Let the oldest of a trigger go."""
    aged = database.execute("DELETE FROM dead_letters WHERE trigger = ? AND at < ?", (name, at - caps.age_s)).rowcount
    count, size = database.execute(
        "SELECT count(*), total(size) FROM dead_letters WHERE trigger = ?", (name,)
    ).fetchone()
    if count <= caps.most and size <= caps.size:
        return Dropped(too_old=aged)
    over_count: list[tuple[int]] = []
    over_bytes: list[tuple[int]] = []
    for id, bytes_ in database.execute("SELECT id, size FROM dead_letters WHERE trigger = ? ORDER BY id", (name,)):
        if count > caps.most:
            over_count.append((id,))
        elif size > caps.size and count > 1:
            over_bytes.append((id,))
        else:
            break
        count, size = count - 1, size - bytes_
    database.executemany("DELETE FROM dead_letters WHERE id = ?", over_count + over_bytes)
    return Dropped(len(over_count), len(over_bytes), aged)


def replays(database: sqlite3.Connection, after: int, limit: int) -> list[Replay]:
    """Those that are marked, after a number, oldest first."""
    rows = database.execute(
        "SELECT id, trigger, attempts, mark, event FROM dead_letters WHERE replay AND id > ? ORDER BY id LIMIT ?",
        (after, limit),
    )
    return [Replay(*row) for row in rows.fetchall()]


def heads(database: sqlite3.Connection, ids: Sequence[int] = ()) -> Iterator[Head]:
    """All, or those with these numbers, oldest first."""
    where = f"WHERE id IN ({','.join('?' * len(ids))})" if ids else ""
    for row in database.execute(f"SELECT {_HEAD} FROM dead_letters {where} ORDER BY id", ids):
        yield Head(*row)


def event_of(database: sqlite3.Connection, id: int) -> bytes:
    """The event of a letter, encoded; empty when there is no such letter."""
    row = database.execute("SELECT event FROM dead_letters WHERE id = ?", (id,)).fetchone()
    return row[0] if row else b""


def mark_for_replay(database: sqlite3.Connection, ids: Sequence[int]) -> int:
    """How many were marked."""
    return database.executemany("UPDATE dead_letters SET replay = 1 WHERE id = ?", [(id,) for id in ids]).rowcount


def purge(database: sqlite3.Connection, ids: Sequence[int]) -> int:
    """How many were removed."""
    return database.executemany("DELETE FROM dead_letters WHERE id = ?", [(id,) for id in ids]).rowcount
