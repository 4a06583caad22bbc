"""Damaged databases: set aside, what can be read is saved, and there is always a sound one to go on with."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Event
from agent.processor.delivery.codec import Damaged, decode_event, encode_event
from agent.processor.delivery.group import Chunk, Group
from agent.processor.delivery.recovery import KEPT
from agent.processor.delivery.schema import MIGRATIONS, PAGE_BYTES, NewerStore, connect
from agent.processor.delivery.store import Store

FIRST = (1 << 40) + 1
HEAVY = 600  # events


def record(number: int) -> bytes:
    size = (20, 300, 2500)[number % 3]  # the last one does not fit on one page
    return encode_event(Event(topic=f"sensors/{number}", body=b"%06d" % number + bytes([number % 251]) * size))


def number_of(event: bytes) -> int:
    return int(bytes(decode_event(event).body)[:6])


def open_store(path: Path) -> Store:
    return Store(path, ["t"], connect)


def left_by_a_crash(folder: Path, *, checkpoint: bool) -> Path:
    """A database and its log as a killed process leaves them: commits of ten events each."""
    path = folder / "delivery.db"
    store = open_store(path)
    store.contents()
    for start in range(0, HEAVY, 10):
        group = Group()
        group.inserts = [(FIRST + n, 0, b"%016d" % n, record(n)) for n in range(start, start + 10)]
        store.commit(group, 0)
    if checkpoint:
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        store.commit(Group(inserts=[(FIRST + HEAVY, 0, None, record(HEAVY))]), 0)
    crashed = folder / "crashed"
    crashed.mkdir()
    for name in ("delivery.db", "delivery.db-wal"):
        shutil.copy(folder / name, crashed / name)
    store.close()
    return crashed / "delivery.db"


def events_in(store: Store) -> list[int]:
    found = []
    for row in store.backlog(FIRST - 1, 10_000, 1 << 30):
        with contextlib.suppress(Damaged):  # known by its checksum when its turn comes
            found.append(number_of(row.event))
    assert found == sorted(set(found))
    return found


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def reopened(path: Path) -> tuple[list[int], bool]:
    store = open_store(path)
    contents = store.contents()
    found = events_in(store)
    assert contents.triggers["t"].events >= len(found)
    store.commit(Group(inserts=[(contents.triggers["t"].next_seq, 0, None, record(999_999 % 1000))]), 0)
    store.close()
    if contents.recovered:
        assert contents.recovered.aside.exists()
        assert contents.recovered.why
    return found, contents.recovered is not None


def test_after_a_crash_everything_is_there_and_nothing_is_set_aside(tmp_path: Path) -> None:
    for checkpoint in (False, True):
        folder = tmp_path / str(checkpoint)
        folder.mkdir()
        found, recovered = reopened(left_by_a_crash(folder, checkpoint=checkpoint))
        assert found == list(range(HEAVY + checkpoint))
        assert not recovered
        assert list((folder / "crashed").iterdir()) == [folder / "crashed" / "delivery.db"]


@pytest.mark.parametrize(
    "damage", [b"", b"SQLite format 3\0" + b"\xff" * 1008, os.urandom(PAGE_BYTES), bytes(PAGE_BYTES)]
)
def test_a_first_page_that_is_lost_loses_nothing_else(tmp_path: Path, damage: bytes) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    wal_of(path).unlink()
    overwrite(path, 0, damage or b"garbage!")
    found, recovered = reopened(path)
    assert recovered
    assert found == list(range(HEAVY))


@pytest.mark.parametrize("seed", range(12))
def test_damaged_pages_cost_their_own_rows_only(tmp_path: Path, seed: int) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    chosen = random.Random(seed).sample(range(8, path.stat().st_size // PAGE_BYTES), 3)
    for page in chosen:
        overwrite(path, page * PAGE_BYTES, random.Random(seed).randbytes(PAGE_BYTES))
    found, _ = reopened(path)
    missing = set(range(HEAVY + 1)) - set(found)
    if len(missing) > 40:  # one of the few pages above the leaves
        assert len(missing) < HEAVY * 0.6
    # events are checked when they are taken out: a record whose bytes have changed is not handed to anybody


@pytest.mark.parametrize("keep", [0, 1, 100, 512, PAGE_BYTES, 20 * PAGE_BYTES + 7, 0.5, 0.9])
def test_a_file_that_is_cut_off_keeps_what_is_there(tmp_path: Path, keep: float) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    size = int(keep * path.stat().st_size) if isinstance(keep, float) else int(keep)
    os.truncate(path, size)
    found, recovered = reopened(path)
    assert recovered
    assert HEAVY in found or size < PAGE_BYTES * 8  # the last one is in the log
    if isinstance(keep, float):
        assert len(found) > HEAVY * (keep - 0.3)


def test_an_empty_file_with_a_log_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=False)
    os.truncate(path, 0)
    found, recovered = reopened(path)
    assert recovered
    assert found == list(range(HEAVY))


def test_frames_of_an_older_log_are_not_taken_for_damage(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=False)
    store = open_store(path)
    store.contents()  # the log was read, and is written from its start again
    store.commit(Group(attempts={FIRST: 1}), 0)
    copy = tmp_path / "again"
    copy.mkdir()
    for name in ("delivery.db", "delivery.db-wal"):
        shutil.copy(path.with_name(name), copy)
    store.close()
    assert wal_of(copy / "delivery.db").stat().st_size > 100_000
    found, recovered = reopened(copy / "delivery.db")
    assert found == list(range(HEAVY))
    assert not recovered


def test_a_torn_last_commit_is_no_damage(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=False)
    os.truncate(wal_of(path), wal_of(path).stat().st_size - 700)
    found, recovered = reopened(path)
    assert not recovered
    assert found[: HEAVY - 10] == list(range(HEAVY - 10))


@pytest.mark.parametrize("seed", range(25))
def test_a_power_cut_costs_nothing_of_the_commits_before(tmp_path: Path, seed: int) -> None:
    """The sectors of the last, unsynced commit reach the disk in any selection; nothing before it is touched."""
    chance = random.Random(seed)
    path = tmp_path / "delivery.db"
    store = open_store(path)
    store.contents()
    for start in range(0, 100, 10):
        synced = wal_of(path).stat().st_size if start else 0
        group = Group(inserts=[(FIRST + n, 0, None, record(n)) for n in range(start, start + 10)])
        store.commit(group, 0)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("delivery.db", "delivery.db-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    store.close()
    log = wal_of(crashed / "delivery.db")
    for at in range(synced, log.stat().st_size, 512):
        if chance.random() < 0.4:
            overwrite(log, at, bytes(min(512, log.stat().st_size - at)))
    found, _ = reopened(crashed / "delivery.db")
    assert found[:90] == list(range(90))


@pytest.mark.parametrize("place", [0, 8, 16, 0.02, 0.3, 0.7, 0.97])
def test_a_log_damaged_in_the_middle_does_not_lose_what_comes_after(tmp_path: Path, place: float) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=False)
    size = wal_of(path).stat().st_size
    overwrite(wal_of(path), int(place * size) if isinstance(place, float) else place, b"\xa5" * 40)
    found, recovered = reopened(path)
    assert recovered
    assert len(found) >= HEAVY - 45
    assert found[-1] == HEAVY - 1


def test_a_log_of_garbage_costs_what_was_only_there(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    wal_of(path).write_bytes(os.urandom(50_000))
    found, _ = reopened(path)
    assert found == list(range(HEAVY))


def test_what_was_finished_is_not_saved_as_waiting(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=False)
    store = open_store(path)
    store.contents()
    store.commit(
        Group(removed=[FIRST + n for n in range(50)], chunks=[Chunk(FIRST, 0, [b"%016d" % n for n in range(50)])]), 0
    )
    copy = tmp_path / "again"
    copy.mkdir()
    for file in path.parent.iterdir():
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    store.close()
    overwrite(
        wal_of(copy / "delivery.db") if wal_of(copy / "delivery.db").exists() else copy / "delivery.db", 40, b"\xff" * 9
    )
    found, _ = reopened(copy / "delivery.db")
    assert not set(found) & set(range(50))


def test_only_the_last_damaged_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    for _ in range(KEPT + 3):
        store = open_store(path)
        store.contents()
        store.close()
        overwrite(path, 0, b"not a database at all")
    open_store(path).close()
    names = sorted(item.name for item in tmp_path.glob("*.corrupt-*"))
    assert names == [f"delivery.db.corrupt-{n}" for n in (4, 5, 6)]


def test_found_damaged_while_in_use(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    store = open_store(path)
    store.contents()
    store.recover()
    contents = store.contents()
    assert contents.recovered
    assert events_in(store) == list(range(HEAVY + 1))
    store.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    open_store(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(NewerStore, match="newer release"):
        open_store(path)
    assert [item.name for item in tmp_path.iterdir()] == ["delivery.db"]


def test_an_older_schema_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "delivery.db"
    store = open_store(path)
    store.contents()
    store.commit(Group(inserts=[(FIRST, 0, None, record(1))]), 0)
    store.close()
    more = (*MIGRATIONS, "ALTER TABLE triggers ADD COLUMN note TEXT;")
    monkeypatch.setattr("agent.processor.delivery.schema.MIGRATIONS", more)
    store = open_store(path)
    assert events_in(store) == [1]
    store.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(more),)
        database.execute("SELECT note FROM triggers")
    database.close()


@pytest.mark.parametrize("step", ["os.replace", "shutil.copyfile", "os.fsync"])
def test_a_recovery_that_is_interrupted_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = left_by_a_crash(tmp_path, checkpoint=True)
    overwrite(path, 0, b"garbage!")
    module, _, name = step.partition(".")
    real = getattr({"os": os, "shutil": shutil}[module], name)
    for fails_at in range(1, 5):
        calls = iter(range(1, 100))

        def cut(*arguments: Any, fails_at: int = fails_at, calls: Any = calls, **more: Any) -> Any:
            if next(calls) == fails_at:
                raise OSError("the power goes")
            return real(*arguments, **more)

        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            patch.setattr(f"agent.processor.delivery.recovery.{step}", cut)
            open_store(path).close()
    found, _ = reopened(path)
    assert found == list(range(HEAVY + 1))
    assert not [item for item in path.parent.iterdir() if item.name.startswith(".") or "whole" in item.name]
