"""The database of one function's delivery: its tables, their versions, and how a connection is set up.

    triggers      names and the numbers that stand for them
    journal       events not handled yet; `seq` is the trigger's number and a count: (trigger << 40) + n
    attempts      failed attempts of events in the journal, where there were any
    finished      marks (16-byte hashes of ids) of handled events, in the order they were handled, `seq` as above
    dead_letters  events whose last attempt failed
    outbox_targets, outbox   what the function has published: see agent.processor.outbox.storage

`at` is seconds on the clock of this database, which stands still while nobody has it open: wall clocks jump.

Choices: WAL with synchronous=FULL, because a commit is what an acknowledgement stands on, and with NORMAL a commit is
only on the disk at the next checkpoint. Pages of 512 bytes: what a small commit writes beside its events is counted in
pages. Incremental vacuum gives space back after a burst.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent.model.errors import AgentError

PAGE_BYTES = 512
SEQ_BITS = 40
_WAL_PAGES = 8192  # 4 MiB: pages that are written again and again reach the database file once per so many

Connect = Callable[[Path], sqlite3.Connection]

MIGRATIONS = (
    """
    CREATE TABLE triggers(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE journal(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, mark BLOB, event BLOB NOT NULL);
    CREATE TABLE attempts(seq INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE finished(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, marks BLOB NOT NULL, answer BLOB);
    CREATE TABLE dead_letters(id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, trigger TEXT NOT NULL,
        size INTEGER NOT NULL, replay INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL,
        received_ns INTEGER NOT NULL, failed_ns INTEGER NOT NULL, result TEXT NOT NULL, status INTEGER NOT NULL,
        reason TEXT NOT NULL, mark BLOB, event BLOB NOT NULL);
    """,
    """
    CREATE TABLE outbox_targets(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL);
    CREATE TABLE outbox(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, size INTEGER NOT NULL, state INTEGER NOT NULL,
        key TEXT NOT NULL, message BLOB NOT NULL);
    """,
)
"""One script a version: `user_version` counts those that were run. Never change one that was released, add one."""

TABLES = ("triggers", "journal", "attempts", "finished", "dead_letters", "outbox_targets", "outbox")


class NewerStore(AgentError):
    """Written by a later release."""

    code = "delivery.newer"


def connect(path: Path) -> sqlite3.Connection:
    """A plain connection that may be used from any one thread at a time."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)


def open_database(path: Path, connect: Connect = connect) -> sqlite3.Connection:
    """The database, made or migrated as needed. Raises sqlite3.Error, NewerStore."""
    database = connect(path)
    try:
        _set_up(database)
        _migrate(database, path)
    except BaseException:
        database.close()
        raise
    return database


def split_marks(marks: bytes) -> list[bytes]:
    """The marks of a row of `finished`."""
    return [marks[at : at + 16] for at in range(0, len(marks), 16)]


def _set_up(database: sqlite3.Connection) -> None:
    database.execute(f"PRAGMA page_size={PAGE_BYTES}")
    database.execute("PRAGMA auto_vacuum=INCREMENTAL")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
    database.execute(f"PRAGMA journal_size_limit={_WAL_PAGES * PAGE_BYTES}")
    database.execute("PRAGMA cache_size=-512")
    database.execute("PRAGMA temp_store=MEMORY")


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise NewerStore(
            f"the delivery store has version {version}, this release knows {len(MIGRATIONS)}",
            where=str(path),
            fix="run the newer release, or move the file away to begin with an empty store",
        )
    for number in range(version, len(MIGRATIONS)):
        database.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version={number + 1}; COMMIT;")
