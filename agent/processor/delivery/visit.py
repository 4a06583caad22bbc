"""Another process looks into a function's delivery store, or changes its dead letters, while the function runs or not.

Flow: `headrace dead-letters` -> [visit] -> the database; a bell tells the processor that owns it.
Promise: a store that nobody has open is checked, and if need be recovered, before it is written: closing it would throw
away what only its damaged log still has. Looking changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.model.errors import CommandError
from agent.processor.delivery.delivery import DATABASE
from agent.processor.delivery.recovery import open_or_recover
from agent.processor.delivery.replays import BELL
from agent.processor.delivery.schema import MIGRATIONS, connect


@contextlib.contextmanager
def looking(folder: Path) -> Iterator[sqlite3.Connection]:
    """The store in this state folder, to be read. Raises CommandError."""
    path = _existing(folder)
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10.0)
        with contextlib.closing(database):
            _check_version(database, path)
            yield database
    except sqlite3.Error as error:
        raise CommandError(f"cannot be read: {error}", where=str(path)) from error


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[sqlite3.Connection]:
    """The same, to be written; one transaction. Raises CommandError."""
    path = _existing(folder)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        database = _open(path, alone=_is_free(lock))
        with contextlib.closing(database):
            _check_version(database, path)
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise CommandError(f"cannot be changed: {error}", where=str(path)) from error
    finally:
        os.close(lock)


def ring(folder: Path) -> bool:
    """Tell the processor that letters are marked. False when none has the store open: its next start finds them."""
    try:
        bell = os.open(folder / BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(bell, b"!")
    except BlockingIOError:
        pass  # it has been rung often enough
    finally:
        os.close(bell)
    return True


def _existing(folder: Path) -> Path:
    path = folder / DATABASE
    if not path.is_file():
        raise CommandError("nothing was ever kept here", where=str(folder), fix="is it the function's state folder?")
    return path


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, *, alone: bool) -> sqlite3.Connection:
    if alone:
        return open_or_recover(path, connect)[0]
    database = connect(path)
    database.execute("PRAGMA synchronous=FULL")
    return database


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise CommandError(f"the store has version {version}, too new for this release", where=str(path))
