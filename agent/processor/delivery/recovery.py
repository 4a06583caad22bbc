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
    """A sound database at `path`. Raises sqlite3.Error when there cannot be one now, NewerStore."""
    _sweep(path)
    if _size(_wal(path)) == 0:
        try:
            return open_database(path, connect), None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return recover(path, connect, str(error))
    hold_log(path)
    why = "the file is empty, its log is not" if _size(path) == 0 else ""  # SQLite would throw the log away
    try:
        database = None if why else open_database(path, connect)
        why = _check(database, path) if database else why
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            _held(path).unlink(missing_ok=True)
            raise
        why = str(error)
    if not why and database:
        _held(path).unlink(missing_ok=True)
        return database, None
    if database:
        database.close()
    return recover(path, connect, why)


def hold_log(path: Path) -> None:
    """A second name for the log, since SQLite deletes it when it is closed, without what it could not read."""
    held = _held(path)
    held.unlink(missing_ok=True)
    try:
        os.link(_wal(path), held)
    except OSError:  # there is none, or the file system has no links
        with contextlib.suppress(OSError):
            shutil.copyfile(_wal(path), held)


def recover(
    path: Path, connect: Connect, why: str = "it was found damaged while in use"
) -> tuple[sqlite3.Connection, Recovered]:
    """Set the closed database aside, make a fresh one, and save into it what can be read."""
    aside = _set_aside(path)
    database = open_database(path, connect)
    recovered = Recovered(aside, why)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_COPY) as folder:
        copy = Path(folder) / "copy.db"
        for source, target in ((aside, copy), (_wal(aside), _wal(copy))):
            with contextlib.suppress(OSError):
                shutil.copyfile(source, target)
        database.execute("BEGIN IMMEDIATE")
        valid = _save_tables(copy, database, recovered)
        _save_leftovers(database, leftovers(_wal(aside), valid), recovered)
        for (marks,) in database.execute("SELECT marks FROM finished").fetchall():
            database.executemany("DELETE FROM journal WHERE mark = ?", [(mark,) for mark in split_marks(marks)])
        database.execute("COMMIT")
    return database, recovered


def _check(database: sqlite3.Connection, path: Path) -> str:
    """What is wrong, or nothing. Reads the whole file: asked only when the end before was not an orderly one."""
    rows = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
    for table in TABLES:
        database.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    if rows != ["ok"]:
        return rows[0]
    rest = leftovers(_held(path), _valid_frames(database))
    if rest.commits > 1:
        return "the log is damaged before its end"
    # A commit that was cut short was acknowledged to nobody. What of it is whole may as well be handled.
    _save_leftovers(database, rest, Recovered(path, ""))
    return ""


def _valid_frames(database: sqlite3.Connection) -> int:
    """How much of the log SQLite can read."""
    row = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return max(0, int(row[1])) if row else 0


def _save_tables(copy: Path, database: sqlite3.Connection, recovered: Recovered) -> int:
    """Save what SQLite can read of the copy; how many frames of its log those are."""
    source = _open_damaged(copy)
    if source is None:
        return 0
    with contextlib.closing(source):
        for table in TABLES:
            _save(database, recovered, table, _rows(source, table), "INSERT OR REPLACE")
        try:
            return _valid_frames(source)
        except sqlite3.Error:
            return 0


def _save_leftovers(database: sqlite3.Connection, rest: Leftovers, recovered: Recovered) -> None:
    for table, rows in rest.rows.items():
        _save(database, recovered, table, iter(rows), "INSERT OR IGNORE")


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
        behind = _next_readable(source, table, after)
        if behind is None:
            return
        for key in range(after + 1, min(behind, after + _MOST_PROBES)):
            with contextlib.suppress(sqlite3.Error):
                yield from source.execute(f"SELECT * FROM {table} WHERE rowid = ?", (key,)).fetchall()
        after = max(after, behind - 1)


def _next_readable(source: sqlite3.Connection, table: str, after: int) -> int | None:
    """The number of a row behind the damage, found in steps that double."""
    step = 1
    while step < 1 << 62:
        try:
            row = source.execute(
                f"SELECT rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT 1", (after + step,)
            ).fetchone()
        except sqlite3.Error:
            step *= 2
            continue
        return int(row[0]) if row else None
    return None


def _set_aside(path: Path) -> Path:
    """Rename the database and its log to the next free `.corrupt-N`; forget the oldest of more than KEPT."""
    taken = sorted(
        (int(number), item)
        for item in path.parent.glob(f"{path.name}.corrupt-*")
        if (number := item.name.rpartition("-")[2]).isdigit()
    )
    aside = path.with_name(f"{path.name}.corrupt-{taken[-1][0] + 1 if taken else 1}")
    for source, target in ((path, aside), (_wal(path), _wal(aside)), (_held(path), _wal(aside))):
        with contextlib.suppress(FileNotFoundError):
            os.replace(source, target)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}-shm").unlink()
    for _, old in taken[: max(0, len(taken) + 1 - KEPT)]:
        old.unlink(missing_ok=True)
        _wal(old).unlink(missing_ok=True)
    return aside


def _sweep(path: Path) -> None:
    """Copies that a recovery left which was itself interrupted."""
    for folder in path.parent.glob(f"{_COPY}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}-held")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
