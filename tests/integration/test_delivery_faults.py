"""The delivery store under faults: writes that fail, a disk that fills, a processor that is killed, two at a time.

This module is also a program: a processor that is fed by `feed`, for a parent that kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Event, Outcome, Result
from agent.processor.delivery.commits import Commits
from agent.processor.main import Processor
from tests.integration.test_delivery import JOURNAL, RECORD, bodies, rows, waiting
from tests.support.eventually import eventually, wait_until
from tests.support.processor import RunningProcessor, config_for, running

ROOT = Path(__file__).parents[2]


class Disk(sqlite3.Connection):
    """A connection whose commits fail while `fault` says so."""

    fault = ""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if Disk.fault and sql == "COMMIT":
            raise sqlite3.OperationalError(Disk.fault)
        return super().execute(sql, *values)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Disk]]:
    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Disk)

    monkeypatch.setitem(Commits.__init__.__kwdefaults__, "connect", connect)
    yield Disk
    Disk.fault = ""


def status(f: RunningProcessor) -> tuple[bool, str]:
    statistics = f.processor.statistics()["triggers"]["t"]
    return statistics["up"], statistics["why"]


async def test_with_fsync_failing_nothing_is_acknowledged_and_intake_stops(tmp_path: Path, disk: type[Disk]) -> None:
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        assert (await f.call(b"before", deliver=True)).ok
        disk.fault = "disk I/O error"
        sent = [f.start(b"%d" % n, deliver=True) for n in range(50)]
        await eventually(lambda: f.sink.full)
        await eventually(lambda: "disk I/O error" in status(f)[1])
        assert not any(outcome.done() for outcome in sent)
        assert (await f.call(b"refused")).result is Result.NO_WORKER  # somebody waits: tell him now
        disk.fault = ""
        assert all(outcome.ok for outcome in await asyncio.gather(*sent))
        await eventually(lambda: waiting(f) == 0)
        assert status(f)[0]
        assert not f.sink.full
    assert bodies(tmp_path) == ["before", *(str(n) for n in range(50))]


async def test_a_processor_that_stops_while_the_disk_fails_leaves_the_events_to_their_source(
    tmp_path: Path, disk: type[Disk]
) -> None:
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        await f.sink.room()
        disk.fault = "disk I/O error"
        sent = f.start(b"x", deliver=True)
        await eventually(lambda: not status(f)[0])
    assert (await sent).result is Result.STOPPED


async def test_dead_letters_that_cannot_be_written_hold_back_the_acknowledgement(
    tmp_path: Path, disk: type[Disk]
) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, delivery="at-least-once", maxAttempts=1) as f:
        assert not (await f.call(b"first", deliver=True)).ok
        disk.fault = "database or disk is full"
        second = f.start(b"second", deliver=True)
        await eventually(lambda: len(bodies(tmp_path)) == 2)
        await asyncio.wait([second], timeout=0.2)
        assert not second.done()
        disk.fault = ""
        assert not (await second).ok
        assert rows(tmp_path, "SELECT count(*) FROM dead_letters") == [(2,)]


async def test_dead_letters_that_never_get_written_are_counted_as_lost(tmp_path: Path, disk: type[Disk]) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, delivery="at-least-once", maxAttempts=1) as f:
        assert not (await f.call(b"first", deliver=True)).ok
        disk.fault = "disk I/O error"
        second = f.start(b"second", deliver=True)
        await eventually(lambda: len(bodies(tmp_path)) == 2)
        await asyncio.wait([second], timeout=0.1)
    assert (await second).result is Result.STOPPED
    assert f.sink.statistics.counters["dead_letters_lost"] == 1  # cron cannot send it again


async def test_a_database_found_damaged_while_in_use_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(100)))
        await eventually(lambda: waiting(f) == 0)
        database = sqlite3.connect(tmp_path / "state" / "delivery.db")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        with (tmp_path / "state" / "delivery.db").open("r+b") as file:
            file.write(os.urandom(65536))
        f.sink._delivery.commits._store._database.execute("PRAGMA cache_size=0")  # type: ignore[attr-defined]
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(100, 300)))
        await eventually(lambda: waiting(f) == 0)
    assert Counter(bodies(tmp_path)) >= Counter(str(n) for n in range(300))


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no right to mount: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - leave))
    return path


async def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "state").symlink_to(small_disk)
    acknowledged: list[int] = []
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        await f.sink.room()
        ballast = fill(small_disk, leave=16384)
        sent = {n: f.start(b"%d %s" % (n, b"x" * 1000), deliver=True) for n in range(100)}
        await eventually(lambda: f.sink.full)
        acknowledged += [n for n, outcome in sent.items() if outcome.done() and outcome.result().ok]
        assert len(acknowledged) < 100
        ballast.unlink()
        assert all(outcome.ok for outcome in await asyncio.gather(*sent.values()))
        await eventually(lambda: waiting(f) == 0)
    assert sorted({int(body.split()[0]) for body in bodies(tmp_path)}) == list(range(100))


async def test_intake_stops_before_the_disk_is_full(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "state").symlink_to(small_disk)
    (tmp_path / "fail").touch()
    keys = {"journal": {"commitWindow": "5ms", "minFreeBytes": 300_000, "minFreePercent": 0}}
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **keys) as f:
        await f.sink.room()
        number = 0
        while not f.sink.full and number < 1000:
            assert (await f.call(bytes(1000), deliver=True)).ok
            number += 1
        assert 50 < number < 1000
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        assert 200_000 < free < 300_000
        assert "nearly full" in status(f)[1]


# --- two processors, and killed ones ---------------------------------------------------------------------------------


async def test_a_successor_waits_until_its_predecessor_has_let_go(tmp_path: Path) -> None:
    slow = RECORD.replace('return "done"', "import time; time.sleep(0.01)")
    async with running(tmp_path, slow, **JOURNAL) as old:
        await asyncio.gather(*(old.call(b"%d" % n, deliver=True) for n in range(100)))
        new = Processor(config_for(tmp_path, slow, **JOURNAL))
        task = asyncio.create_task(new.run())
        await eventually(lambda: new.sinks)
        sink = next(iter(new.sinks.values()))
        assert sink.full
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        sink.deliver(Event(body=b"100"), outcome.set_result)
    assert (await outcome).status == 202
    await eventually(lambda: len(bodies(tmp_path)) == 101)
    new.stop()
    await task
    assert sorted(map(int, bodies(tmp_path))) == list(range(101))


async def feed(folder: str, keys: str, first: str, count: str) -> None:
    """Deliver numbered events as a source that sends again what was not acknowledged; write down what was."""
    place = Path(folder)
    acknowledged = os.open(place / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    more = JOURNAL if keys == "journal" else {"delivery": "effectively-once", "idFrom": "header:id"}
    if keys == "both":
        more = more | JOURNAL
    async with running(place, RECORD, **more) as f:

        def done(number: int, outcome: Outcome) -> None:
            if outcome.ok:
                os.write(acknowledged, b"%d\n" % number)

        for number in range(int(first), int(count)):
            await f.sink.room()
            event = Event(body=b"%d" % number, headers=[("id", str(number))])
            f.sink.deliver(event, lambda outcome, number=number: done(number, outcome))
            if number % 8 == 0:
                await asyncio.sleep(0.002)  # so that there is time to be killed
        await f.sink.drained()
        if keys != "ids":
            await eventually(lambda: not waiting(f))
        os.write(acknowledged, b"end\n")


def numbers(folder: Path) -> list[int]:
    """Those that were acknowledged."""
    return [int(line) for line in lines(folder / "acknowledged") if line != "end"]


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("keys", ["journal", "ids", "both"])
def test_killed_again_and_again(tmp_path: Path, keys: str) -> None:
    total, kills = 3000, 5
    chance = random.Random(keys)
    acknowledged: set[int] = set()
    before: list[tuple[set[int], int]] = []  # at each kill: acknowledged, and how many runs there were
    for turn in range(kills + 1):
        # The source begins again with what it has no acknowledgement for; with ids, with some that it has, too.
        missing = min(set(range(total)) - acknowledged)
        first = missing if keys == "journal" else max(0, missing - 50)
        command = [sys.executable, "-m", "tests.integration.test_delivery_faults", str(tmp_path), keys, str(first)]
        with subprocess.Popen([*command, str(total)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            if turn == kills:
                assert process.wait(60) == 0
                break
            goal = max(acknowledged, default=0) + chance.randrange(20, total // (kills + 1))
            wait_until(lambda goal=goal: max(numbers(tmp_path), default=0) >= goal, 30)
            process.send_signal(signal.SIGKILL)
        acknowledged = set(numbers(tmp_path))
        before.append((acknowledged, len(bodies(tmp_path))))
    assert lines(tmp_path / "acknowledged")[-1] == "end"
    handled = Counter(map(int, bodies(tmp_path)))
    assert set(handled) == set(range(total))  # nothing is lost
    if keys == "ids":
        # Acknowledged means: the handler has succeeded and the id is on the disk. None of those was handled again.
        for known, runs in before:
            assert not known & set(map(int, bodies(tmp_path)[runs:]))
    if keys == "both":
        doubled = sum(n - 1 for n in handled.values())
        assert doubled <= kills * 80  # those whose commit was under way, and none else


if __name__ == "__main__":
    asyncio.run(feed(*sys.argv[1:]))
