"""What is done to the database, one call a transaction. Every method runs in the one thread that owns the connection.

Flow: commits (the loop's side) -> [store] -> SQLite. A commit that raises has changed nothing and can be made again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agent.processor.delivery import letters
from agent.processor.delivery.group import Chunk, Eviction, Group
from agent.processor.delivery.recovery import Recovered, open_or_recover, read_log, recover
from agent.processor.delivery.schema import SEQ_BITS, Connect, split_marks

T = TypeVar("T")

_VACUUM_PAGES = 2048  # 1 MiB of free pages from which on the file is made smaller
_LOOK_EVERY = 64  # commits
_BURY = f"""INSERT INTO dead_letters
    (at, trigger, size, attempts, received_ns, failed_ns, result, status, reason, mark, event)
    SELECT at, coalesce(name, '?'), length(event), coalesce(n, 0), ?, ?, 'abandoned', 0, ?, mark, event FROM journal
    LEFT JOIN attempts USING(seq) LEFT JOIN triggers ON id = (seq >> {SEQ_BITS})"""
_REASON_GONE = "its trigger is no longer part of the function"


class Row(NamedTuple):
    """One event of the journal."""

    seq: int
    at: int
    mark: bytes | None
    event: bytes
    attempts: int


@dataclass(slots=True)
class Kept:
    """What the store holds for one trigger."""

    number: int
    next_seq: int
    next_chunk: int
    events: int = 0
    size: int = 0
    marks: list[bytes] = field(default_factory=list)  # of events in the journal
    chunks: list[Chunk] = field(default_factory=list)  # without their answers
    seqs: list[int] = field(default_factory=list)  # of the journal, only after a recovery while in use

    @property
    def first_seq(self) -> int:
        """The smallest there can be."""
        return self.number << SEQ_BITS


@dataclass(slots=True)
class Contents:
    """What was found at opening."""

    at: int
    triggers: dict[str, Kept]
    dead_letters: int
    recovered: Recovered | None
    abandoned: int = 0  # events of triggers that are gone, now dead letters


class Store:
    """`triggers` are the names this version of the function has. Raises sqlite3.Error, OSError, NewerStore."""

    def __init__(self, path: Path, triggers: Iterable[str], connect: Connect) -> None:
        self._path, self._names, self._connect = path, list(triggers), connect
        self._commits = 0
        self._read = False
        self._database, self._recovered = open_or_recover(path, connect)

    # --- what is there -------------------------------------------------------------------------------------------

    def contents(self) -> Contents:
        """Read at opening, and again after a recovery."""
        database = self._database
        with _transaction(database):
            database.executemany("INSERT OR IGNORE INTO triggers(name) VALUES(?)", [(name,) for name in self._names])
            abandoned = self._bury_abandoned()
        at = max(
            _one(database, f"SELECT max(at) FROM {table}") or 0 for table in ("journal", "finished", "dead_letters")
        )
        numbers = dict(database.execute("SELECT name, id FROM triggers").fetchall())
        triggers = {name: self._kept(numbers[name]) for name in self._names}
        letters = _one(database, "SELECT count(*) FROM dead_letters") or 0
        recovered, self._recovered = self._recovered, None
        if self._read:
            for kept in triggers.values():
                kept.seqs = self._seqs(kept)
        self._read = True
        return Contents(at, triggers, letters, recovered, abandoned)

    def _kept(self, number: int) -> Kept:
        first, last = number << SEQ_BITS, (number + 1 << SEQ_BITS) - 1
        run = self._database.execute
        count, size, newest = run(
            "SELECT count(*), total(length(event)), max(seq) FROM journal WHERE seq BETWEEN ? AND ?", (first, last)
        ).fetchone()
        marks = run("SELECT mark FROM journal WHERE seq BETWEEN ? AND ? AND mark IS NOT NULL", (first, last)).fetchall()
        chunks = [
            Chunk(seq, at, split_marks(marks), b"" if answered else None)
            for seq, at, marks, answered in run(
                "SELECT seq, at, marks, answer IS NOT NULL FROM finished WHERE seq BETWEEN ? AND ? ORDER BY seq",
                (first, last),
            )
        ]
        return Kept(
            number,
            (newest or first) + 1,
            (chunks[-1].seq if chunks else first) + 1,
            count,
            int(size),
            [mark for (mark,) in marks],
            chunks,
        )

    def _seqs(self, kept: Kept) -> list[int]:
        ends = (kept.first_seq, kept.next_seq)
        return [seq for (seq,) in self._database.execute("SELECT seq FROM journal WHERE seq BETWEEN ? AND ?", ends)]

    def _bury_abandoned(self) -> int:
        """Events whose trigger is gone would wait for ever: they become dead letters, which can be seen."""
        places = ",".join("?" * len(self._names))
        known = f"SELECT id FROM triggers WHERE name IN ({places})"
        gone = f"(seq >> {SEQ_BITS}) NOT IN ({known})"
        now = time.time_ns()
        moved = self._database.execute(f"{_BURY} WHERE {gone}", (now, now, _REASON_GONE, *self._names)).rowcount
        self._database.execute(f"DELETE FROM journal WHERE {gone}", self._names)
        self._database.execute("DELETE FROM attempts WHERE seq NOT IN (SELECT seq FROM journal)")
        self._database.execute(f"DELETE FROM finished WHERE {gone}", self._names)
        self._database.execute(f"DELETE FROM triggers WHERE name NOT IN ({places})", self._names)
        return moved

    def backlog(self, after: int, limit: int, most_bytes: int) -> list[Row]:
        """The next events of a trigger after one of its seqs: at least one, then up to the limits."""
        rows: list[Row] = []
        size = 0
        last = (after + 1 >> SEQ_BITS) + 1 << SEQ_BITS
        cursor = self._database.execute(
            """SELECT journal.seq, at, mark, event, coalesce(n, 0) FROM journal LEFT JOIN attempts USING(seq)
            WHERE journal.seq > ? AND journal.seq < ? ORDER BY journal.seq LIMIT ?""",
            (after, last, limit),
        )
        for row in cursor:
            rows.append(Row(*row))
            size += len(row[3])
            if size >= most_bytes:
                break
        cursor.close()
        return rows

    def answer(self, seq: int) -> bytes | None:
        """The reply that was kept."""
        answer: bytes | None = _one(self._database, "SELECT answer FROM finished WHERE seq = ?", (seq,))
        return answer

    def replays(self, after: int, limit: int) -> list[letters.Replay]:
        """Dead letters that are marked to be handled again."""
        return letters.replays(self._database, after, limit)

    def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What another part of the processor wants to know of its own tables."""
        return work(self._database)

    # --- what changes --------------------------------------------------------------------------------------------

    def commit(self, group: Group, at: int) -> dict[str, letters.Dropped]:
        """Write all of it, or raise and write nothing. Dead letters that had to go, by trigger."""
        database = self._database
        dropped: dict[str, letters.Dropped] = {}
        with _transaction(database):
            # Removed first: the pages that get free take up what is inserted, so that few pages are written at all.
            for first, last in _runs(group.removed):
                database.execute("DELETE FROM journal WHERE seq BETWEEN ? AND ?", (first, last))
                database.execute("DELETE FROM attempts WHERE seq BETWEEN ? AND ?", (first, last))
            for eviction in group.evictions:
                self._evict(eviction)
            database.executemany("INSERT OR REPLACE INTO journal VALUES(?,?,?,?)", group.inserts)
            self._write_attempts(group)
            self._write_finished(group)
            for write in group.writes:
                write(database)
            if group.letters or group.settled or group.returned:
                dropped = letters.write(database, group, at)
        self._tidy(draining=bool(group.removed and not group.inserts))
        return dropped

    def _write_attempts(self, group: Group) -> None:
        gone = set(group.removed)
        rows = [(seq, n) for seq, n in group.attempts.items() if seq not in gone]
        self._database.executemany("INSERT OR REPLACE INTO attempts VALUES(?,?)", rows)

    def _write_finished(self, group: Group) -> None:
        for number, last in group.forgotten.items():
            self._database.execute("DELETE FROM finished WHERE seq BETWEEN ? AND ?", (number << SEQ_BITS, last))
        self._database.executemany(
            "INSERT OR REPLACE INTO finished VALUES(?,?,?,?)",
            [(c.seq, c.at, b"".join(c.marks), c.answer) for c in group.chunks],
        )

    def _evict(self, eviction: Eviction) -> None:
        eviction.gone.clear()  # of an attempt to commit that failed
        left = eviction.size
        rows = self._database.execute(
            "SELECT seq, length(event), mark FROM journal WHERE seq > ? AND seq < ? ORDER BY seq",
            (eviction.after, eviction.trigger + 1 << SEQ_BITS),
        )
        for seq, size, mark in rows:
            if left <= 0:
                break
            if seq not in eviction.keep:
                eviction.gone.append((seq, size, mark))
                left -= size
        rows.close()
        self._database.executemany("DELETE FROM journal WHERE seq = ?", [(seq,) for seq, _, _ in eviction.gone])

    def _tidy(self, *, draining: bool) -> None:
        """Give space back once much is free. Failing to is no failure of the commit before."""
        self._commits += 1
        if draining or self._commits % _LOOK_EVERY == 0:
            with contextlib.suppress(sqlite3.OperationalError):
                self.shrink()

    def shrink(self) -> None:
        """Make the file smaller by what it does not need, keeping some pages for what comes next."""
        free = _one(self._database, "PRAGMA freelist_count") or 0
        used = (_one(self._database, "PRAGMA page_count") or 0) - free
        if free > _VACUUM_PAGES and free > used:
            # Pages that are used have to be moved to where free ones were: not many in one go.
            most = _VACUUM_PAGES if used > _VACUUM_PAGES else free - _VACUUM_PAGES // 4
            # As a script: it takes a step a page, and has no rows for `execute` to ask for.
            self._database.executescript(f"PRAGMA incremental_vacuum({most})")

    # --- the end -------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """The file was found damaged while in use: go on with a fresh one that has what could be read."""
        log = read_log(self._path)
        self._database.close()
        self._database, self._recovered = recover(self._path, self._connect, log)

    def close(self) -> None:
        """Leave one file that needs no log."""
        with contextlib.suppress(sqlite3.Error):  # the log holds it all, and is read at the next start
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._database.close()


class _transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK and raise."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
                return
        except sqlite3.Error:
            self._roll_back()
            raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")


def _one(database: sqlite3.Connection, sql: str, values: Iterable[int] = ()) -> Any:
    row = database.execute(sql, tuple(values)).fetchone()
    return row[0] if row else None


def _runs(seqs: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges without a gap."""
    ordered = sorted(seqs)
    start = 0
    for index in range(1, len(ordered) + 1):
        if index == len(ordered) or ordered[index] > ordered[index - 1] + 1:
            yield ordered[start], ordered[index - 1]
            start = index
