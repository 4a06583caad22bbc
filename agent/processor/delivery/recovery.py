"""A damaged database never stops a function: it is set aside, and what can be read of it goes into a fresh one.

Flow: store -> [recovery] -> a connection to a sound database.

What is damaged            what is read
the first page             everything: a sound first page is put in front of a copy, whose other pages are as they were
a page in the middle       every row on the other pages, from both ends and then by number
the file is cut off        every row on the pages that are there
the log (-wal)             what the database file has, and of the log every commit before the damage; then, page by
                           page, whatever rows the rest of the log still shows
Power cuts do none of this: SQLite's log is made for them. It takes a dying card, a stray write, or a hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.processor.delivery.carve import Leftovers, Row, leftovers
from agent.processor.delivery.schema import PAGE_BYTES, TABLES, Connect, open_database, split_marks

KEPT = 3
"""Damaged files that are kept for somebody to look at."""

_COPY = ".delivery-copy-"
_MOST_PROBES = 200_000  # numbers tried one by one where a range cannot be read
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_COLUMNS = {"triggers": 2, "journal": 4, "attempts": 2, "finished": 4, "dead_letters": 13}
_COLUMNS |= {"outbox_targets": 3, "outbox": 6}


@dataclass(slots=True)
class Recovered:
    """What became of a damaged database."""

    aside: Path
    why: str
    rows: dict[str, int] = field(default_factory=dict)


def is_damage(error: sqlite3.Error) -> bool:
    """The file is not what SQLite wrote; anything else (no space, no right, EIO) may pass."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def open_or_recover(path: Path, connect: Connect) -> tuple[sqlite3.Connection, Recovered | None]:
    """A sound database at `path`. Raises sqlite3.Error or OSError when there cannot be one now, NewerStore."""
    _finish_interrupted(path)
    log = read_log(path)
    # SQLite would take it for a new one and throw the log away.
    why = "the file is empty, its log is not" if log and _size(path) < PAGE_BYTES else ""
    if not why:
        try:
            return _open_checked(path, connect, log), None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            why = str(error)
        except _Damage as damage:
            why = str(damage)
    return recover(path, connect, log, why)


class _Damage(Exception):
    """SQLite can live with it, we cannot."""


def _open_checked(path: Path, connect: Connect, log: bytes) -> sqlite3.Connection:
    database = open_database(path, connect)
    try:
        if log and (why := _check(database, log)):
            raise _Damage(why)
    except BaseException:
        database.close()
        raise
    return database


def read_log(path: Path) -> bytes:
    """The log as an end that was not orderly has left it: SQLite deletes it, also what it could not read of it."""
    try:
        return _wal(path).read_bytes()
    except FileNotFoundError:
        return b""


def recover(
    path: Path, connect: Connect, log: bytes, why: str = "it was found damaged while in use"
) -> tuple[sqlite3.Connection, Recovered]:
    """Make a fresh database with what can be read of the closed one, then let it take the place of that.

    Interrupted, it begins again or is finished at the next start: the old files stay until the fresh one is whole.
    """
    recovered = Recovered(path, why)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_COPY) as folder:
        copy, fresh = Path(folder) / "copy.db", Path(folder) / "fresh.db"
        if path.exists():
            shutil.copyfile(path, copy)
        if log:
            _wal(copy).write_bytes(log)
        database = open_database(fresh)
        with contextlib.closing(database):
            database.execute("BEGIN IMMEDIATE")
            valid = _save_tables(copy, database, recovered)
            _save_leftovers(database, leftovers(log, valid), recovered)
            database.execute("COMMIT")
        os.replace(fresh, _whole(path))
    recovered.aside = _change_places(path, log)
    return open_database(path, connect), recovered


def _check(database: sqlite3.Connection, log: bytes) -> str:
    """What is wrong, or nothing. Reads the whole file: asked only when the end before was not an orderly one."""
    rows = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
    for table in TABLES:
        database.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    if rows != ["ok"]:
        return rows[0]
    rest = leftovers(log, _valid_frames(database, log))
    if rest.commits > 1:
        return "the log is damaged before its end"
    if rest.rows:
        # A commit that was cut short was acknowledged to nobody. What of it is whole may as well be handled.
        database.execute("BEGIN IMMEDIATE")
        _save_leftovers(database, rest, Recovered(Path(), ""))
        database.execute("COMMIT")
    return ""


def _valid_frames(database: sqlite3.Connection, log: bytes) -> int:
    """How much of the log SQLite can read; nothing when it has begun another one instead."""
    _, _, file = database.execute("PRAGMA database_list").fetchone()
    row = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return max(0, int(row[1])) if row and read_log(Path(file))[:32] == log[:32] else 0


def _save_tables(copy: Path, database: sqlite3.Connection, recovered: Recovered) -> int:
    """Save what SQLite can read of the copy; how many frames of its log those are."""
    log = read_log(copy)
    source = _open_damaged(copy)
    if source is None:
        return 0
    with contextlib.closing(source):
        for table in TABLES:
            _save(database, recovered, table, _rows(source, table), "INSERT OR REPLACE")
        try:
            return _valid_frames(source, log)
        except sqlite3.Error:
            return 0


def _save_leftovers(database: sqlite3.Connection, rest: Leftovers, recovered: Recovered) -> None:
    for table, rows in rest.rows.items():
        _save(database, recovered, table, iter(rows), "INSERT OR IGNORE")
    # Among them may be events whose end stands elsewhere.
    for (marks,) in database.execute("SELECT marks FROM finished").fetchall():
        database.executemany("DELETE FROM journal WHERE mark = ?", [(mark,) for mark in split_marks(marks)])


def _save(database: sqlite3.Connection, recovered: Recovered, table: str, rows: Iterator[Row], insert: str) -> None:
    places = ",".join("?" * _COLUMNS[table])
    for row in rows:
        try:
            changed = database.execute(f"{insert} INTO {table} VALUES({places})", row).rowcount
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError):
            continue  # no row of ours
        recovered.rows[table] = recovered.rows.get(table, 0) + max(0, changed)


def _open_damaged(copy: Path) -> sqlite3.Connection | None:
    """A connection through which rows can be read, if need be behind a sound first page."""
    for graft in (False, True):
        if graft:
            _graft(copy)
        with contextlib.suppress(sqlite3.Error, OSError):
            source = sqlite3.connect(copy, isolation_level=None)
            try:
                source.execute("PRAGMA cell_size_check=ON")
                if source.execute("SELECT count(*) FROM sqlite_schema WHERE name IN ('journal')").fetchone()[0]:
                    return source
            except sqlite3.Error:
                source.close()
                continue
            source.close()
    return None


def _graft(copy: Path) -> None:
    """Our tables are always made in the same order, so a fresh database has the same first page, but for its size."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        fresh = Path(folder) / "fresh.db"
        open_database(fresh).close()
        sound = bytearray(fresh.read_bytes())
    size = _size(copy)
    pages = max(len(sound), size) // PAGE_BYTES
    head = sound[:PAGE_BYTES]
    head[28:32] = pages.to_bytes(4, "big")
    head[32:40] = bytes(8)  # no free pages: nobody will write here
    with copy.open("r+b" if copy.exists() else "w+b") as file:
        file.write(head)
        if size < len(sound):
            file.seek(size)
            file.write(sound[size:])
        file.truncate(pages * PAGE_BYTES)


def _rows(source: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Every row that can be read: in order to the damage, on behind it, and what lies between one by one."""
    after = -1
    while True:
        with contextlib.suppress(sqlite3.Error):
            for key, *row in source.execute(f"SELECT rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid", (after,)):
                after = key
                yield tuple(row)
            return
        behind, more = _next_readable(source, table, after)
        for key in range(after + 1, min(behind, after + _MOST_PROBES)):
            with contextlib.suppress(sqlite3.Error):
                yield from source.execute(f"SELECT * FROM {table} WHERE rowid = ?", (key,)).fetchall()
        if not more:
            return
        after = max(after, behind - 1)


def _next_readable(source: sqlite3.Connection, table: str, after: int) -> tuple[int, bool]:
    """A number behind the damage, found in steps that double, and whether a row is there: else there are no more."""
    step = 1
    while step < 1 << 62:
        try:
            row = source.execute(
                f"SELECT rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT 1", (after + step,)
            ).fetchone()
        except sqlite3.Error:
            step *= 2
            continue
        return (int(row[0]), True) if row else (after + step + 1, False)
    return after + step, False


def _change_places(path: Path, log: bytes) -> Path:
    """The damaged files become `.corrupt-N`, the whole one takes their name. Returns where the damaged ones are."""
    taken = _aside(path)
    aside = path.with_name(f"{path.name}.corrupt-{taken[-1][0] + 1 if taken else 1}")
    if path.exists():
        os.replace(path, aside)
    _place_whole(path, aside)
    if log and not _wal(aside).exists():
        with contextlib.suppress(OSError):  # only for somebody to look at
            _wal(aside).write_bytes(log)
    for _, old in taken[: max(0, len(taken) + 1 - KEPT)]:
        old.unlink(missing_ok=True)
        _wal(old).unlink(missing_ok=True)
    return aside


def _place_whole(path: Path, aside: Path) -> None:
    if _wal(path).exists():
        os.replace(_wal(path), _wal(aside))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    os.replace(_whole(path), path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish_interrupted(path: Path) -> None:
    """A recovery that did not come to its end: finish it if only the names are missing, else forget it."""
    for folder in path.parent.glob(f"{_COPY}*"):
        shutil.rmtree(folder, ignore_errors=True)
    if not _whole(path).exists():
        return
    if path.exists():
        _whole(path).unlink()
    else:
        _place_whole(path, _aside(path)[-1][1])


def _aside(path: Path) -> list[tuple[int, Path]]:
    """Damaged databases that are kept, by number."""
    return sorted(
        (int(number), item)
        for item in path.parent.glob(f"{path.name}.corrupt-*")
        if (number := item.name.rpartition("-")[2]).isdigit()
    )


def _whole(path: Path) -> Path:
    return path.with_name(f"{path.name}.whole")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
