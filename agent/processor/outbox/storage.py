"""The outbox's tables: what is read at opening and page by page, and what one commit changes.

    outbox_targets  names of the targets, the numbers that stand for them, and the next message's number
    outbox          messages not confirmed yet; `seq` is the target's number and the message's: (target << 40) + n

Runs in the thread of the function's delivery store, inside its transactions.
`state` 1: a QoS 2 message that the broker has taken over, so that only the end of the exchange is missing.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.model.outlet import Message, Parcel
from agent.processor.delivery.codec import Damaged, opened, sealed
from agent.processor.delivery.schema import SEQ_BITS

RELEASED = 1


@dataclass(slots=True)
class Stored:
    """What the store holds for one target."""

    target: int
    next_number: int
    count: int = 0
    size: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    first_at: int = 0


@dataclass(slots=True)
class Page:
    """Messages of a target in their order. `damaged` ones were removed."""

    parcels: list[Parcel]
    end: int  # number of the last row that was looked at
    damaged: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """What one commit does to the outbox."""

    inserts: list[tuple[int, Parcel]] = field(default_factory=list)  # target and parcel
    removed: list[int] = field(default_factory=list)  # seqs
    released: list[int] = field(default_factory=list)

    def remove(self, target: int, parcel: Parcel) -> None:
        """It need not be kept any more."""
        self.removed.append(seq_of(target, parcel))

    def release(self, target: int, parcel: Parcel) -> None:
        """The receiver has taken it over."""
        self.released.append(seq_of(target, parcel))

    def write(self, database: sqlite3.Connection) -> None:
        """May be called again when the commit is made again."""
        database.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in self.removed])
        database.executemany("UPDATE outbox SET state = 1 WHERE seq = ?", [(seq,) for seq in self.released])
        last: dict[int, int] = {}
        for target, parcel in self.inserts:
            row = (seq_of(target, parcel), parcel.at, parcel.size, 0, parcel.message.order, encode(parcel.message))
            database.execute("INSERT OR REPLACE INTO outbox VALUES(?,?,?,?,?,?)", row)
            last[target] = parcel.number + 1
        database.executemany(
            "UPDATE outbox_targets SET next = max(next, ?) WHERE id = ?", [(n, target) for target, n in last.items()]
        )


def seq_of(target: int, parcel: Parcel) -> int:
    """The key of a message's row."""
    return (target << SEQ_BITS) + parcel.number


def encode(message: Message) -> bytes:
    """With a checksum."""
    headers = [[name, value] for name, value in message.headers]
    return sealed([message.topic, message.body, message.qos, message.retain, headers, message.key])


def decode(record: bytes) -> Message:
    """Raises Damaged."""
    try:
        topic, body, qos, retain, headers, key = opened(record)
        return Message(topic, body, qos, retain, [(name, value) for name, value in headers], key)
    except (TypeError, ValueError) as error:
        raise Damaged("not a message") from error


def register(database: sqlite3.Connection, names: Iterable[str]) -> dict[str, Stored]:
    """What is there of each target; those that are new get their number."""
    database.executemany("INSERT OR IGNORE INTO outbox_targets(name, next) VALUES(?, 1)", [(name,) for name in names])
    rows = database.execute("SELECT name, id, next FROM outbox_targets").fetchall()
    return {name: _stored(database, number, following) for name, number, following in rows}


def _stored(database: sqlite3.Connection, number: int, following: int) -> Stored:
    bounds = (number << SEQ_BITS, (number + 1 << SEQ_BITS) - 1)
    found = Stored(number, following)
    rows = database.execute(
        "SELECT key, count(*), sum(size), min(at), max(seq) FROM outbox WHERE seq BETWEEN ? AND ? GROUP BY key", bounds
    ).fetchall()
    for key, count, size, at, newest in rows:
        found.keys[key] = count
        found.count += count
        found.size += size
        found.first_at = min(found.first_at or at, at)
        # The counter and the rows are written together, but not saved together from a damaged store.
        found.next_number = max(found.next_number, newest - bounds[0] + 1)
    return found


def page(database: sqlite3.Connection, target: int, after: int, limit: int, most_bytes: int) -> Page:
    """The next messages after number `after`: at least one, then up to the limits."""
    first = target << SEQ_BITS
    found = Page([], after)
    size = 0
    cursor = database.execute(
        "SELECT seq, at, size, state, message FROM outbox WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?",
        (first + after, target + 1 << SEQ_BITS, limit),
    )
    for seq, at, of, state, record in cursor:
        found.end = seq - first
        try:
            found.parcels.append(Parcel(found.end, at, decode(record), of, released=state == RELEASED))
        except Damaged:
            found.damaged.append(found.end)
        size += of
        if size >= most_bytes:
            break
    cursor.close()
    return found


def expire(database: sqlite3.Connection, target: int, before: int) -> int:
    """Remove what was stored before `before`, for a target that nobody delivers to any more. How many."""
    bounds = (target << SEQ_BITS, (target + 1 << SEQ_BITS) - 1, before)
    return database.execute("DELETE FROM outbox WHERE seq BETWEEN ? AND ? AND at < ?", bounds).rowcount
