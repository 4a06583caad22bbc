"""Delivery with real workers: order per key, dead letters, the journal, ids; and what a restart finds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from agent.model.event import Outcome, Result
from tests.support.eventually import eventually
from tests.support.processor import RunningProcessor, running

JOURNAL = {"journal": {"commitWindow": "10ms", "minFreeBytes": 0, "minFreePercent": 0}}

RECORD = """
    import json, os
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    def handler(context, event):
        with open(os.path.join(folder, "seen"), "a") as file:
            late = dict(event.headers).get("X-Headrace-Late", "")
            file.write(json.dumps([event.body.decode(), late]) + "\\n")
        if os.path.exists(os.path.join(folder, "fail")):
            raise RuntimeError("told to")
        return "done"
"""


def seen(folder: Path) -> list[list[str]]:
    path = folder / "seen"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bodies(folder: Path) -> list[str]:
    return [body for body, _ in seen(folder)]


def counters(f: RunningProcessor) -> dict[str, int]:
    return dict(f.processor.statistics()["triggers"]["t"]["counters"])


def waiting(f: RunningProcessor) -> int:
    """Events in the journal."""
    events: int = f.processor.statistics()["triggers"]["t"].get("journal", {"events": -1})["events"]
    return events


def rows(folder: Path, sql: str) -> list[Any]:
    with sqlite3.connect(folder / "state" / "delivery.db") as database:
        found = database.execute(sql).fetchall()
    database.close()
    return found


# --- the journal ---------------------------------------------------------------------------------------------------


async def test_an_event_is_acknowledged_when_it_is_on_the_disk_and_leaves_when_handled(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        outcomes = await asyncio.gather(*(f.start(b"%d" % n, deliver=True) for n in range(200)))
        assert {(outcome.result, outcome.status) for outcome in outcomes} == {(Result.REPLIED, 202)}
        await eventually(lambda: waiting(f) == 0)
        assert bodies(tmp_path) == [str(n) for n in range(200)]
    assert rows(tmp_path, "SELECT count(*) FROM journal") == [(0,)]


async def test_what_is_not_handled_at_the_end_comes_late_after_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **JOURNAL) as f:
        assert (await f.call(b"kept", deliver=True)).ok
        await eventually(lambda: bodies(tmp_path) == ["kept"])
        await eventually(lambda: f.processor.statistics()["triggers"]["t"]["retried"])
    (tmp_path / "fail").unlink()
    async with running(tmp_path, RECORD, **JOURNAL) as f:
        await eventually(lambda: len(seen(tmp_path)) == 2)
        await eventually(lambda: waiting(f) == 0)
        assert counters(f)["late"] == 1
    assert seen(tmp_path) == [["kept", ""], ["kept", "true"]]


async def test_a_journal_that_is_switched_off_is_emptied_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **JOURNAL) as f:
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(100)))
    (tmp_path / "fail").unlink()
    (tmp_path / "seen").unlink(missing_ok=True)
    async with running(tmp_path, RECORD):
        await eventually(lambda: sorted(bodies(tmp_path), key=int) == [str(n) for n in range(100)])
        await eventually(lambda: rows(tmp_path, "SELECT count(*) FROM journal") == [(0,)])


async def test_events_of_a_trigger_that_is_gone_become_dead_letters(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **JOURNAL) as f:
        await f.call(b"kept", deliver=True)
    triggers = {"other": {"kind": "cron", "interval": "1000h"}}
    async with running(tmp_path, RECORD, spec={"triggers": triggers}):
        await eventually(lambda: rows(tmp_path, "SELECT trigger, result FROM dead_letters") == [("t", "abandoned")])


async def test_live_events_are_not_stuck_behind_a_backlog(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **JOURNAL) as f:
        await asyncio.gather(*(f.call(b"old", deliver=True) for _ in range(400)))
    (tmp_path / "fail").unlink()
    (tmp_path / "seen").unlink()
    slow = RECORD.replace('return "done"', "import time; time.sleep(0.002)")
    async with running(tmp_path, slow, **JOURNAL) as f:
        await asyncio.gather(*(f.call(b"new", deliver=True) for _ in range(50)))
        await eventually(lambda: bodies(tmp_path).count("new") == 50)
        overtaken = 400 - bodies(tmp_path).count("old")
        assert overtaken > 200  # about as many old ones as new ones were handled meanwhile
        await eventually(lambda: waiting(f) == 0)
    assert bodies(tmp_path).count("old") == 400


async def test_with_share_0_everything_goes_in_order(tmp_path: Path) -> None:
    keys = {"journal": JOURNAL["journal"] | {"share": 0}}
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", queueSize=10, **keys) as f:
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(100)))
    (tmp_path / "fail").unlink()
    (tmp_path / "seen").unlink()
    async with running(tmp_path, RECORD, queueSize=10, **keys) as f:
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(100, 200)))
        await eventually(lambda: waiting(f) == 0)
    assert bodies(tmp_path) == [str(n) for n in range(200)]


async def test_a_full_journal_blocks_or_drops_as_it_says(tmp_path: Path) -> None:
    body = b"x" * 10_000
    held = {"retryDelay": "1h", "maxRetryDelay": "1h", "queueSize": 4}
    for policy in ("block", "drop-newest", "drop-oldest"):
        folder = tmp_path / policy
        folder.mkdir()
        (folder / "fail").touch()
        keys = {"journal": JOURNAL["journal"] | {"maxBytes": 100_000, "whenFull": policy}}
        async with running(folder, RECORD, **held, **keys) as f:
            await f.sink.room()
            for n in range(20):
                if not f.sink.full:
                    await f.call(b"%02d" % n + body, deliver=True)
            assert f.sink.full is (policy == "block")
            if policy != "block":
                await eventually(lambda f=f, p=policy: counters(f).get(f"journal_dropped_{p[5:]}", 0) >= 9)
            assert 8 <= waiting(f) <= 11
        kept = [event[6:].find(b"xx") and event for (event,) in rows(folder, "SELECT event FROM journal")]
        numbers = sorted(int(event[event.index(b"xxxx") - 2 :][:2]) for event in kept)
        assert len(numbers) == len(set(numbers))
        if policy == "drop-oldest":
            assert {17, 18, 19} <= set(numbers)  # the newest are there
        else:
            assert numbers == list(range(len(numbers)))


# --- dead letters ----------------------------------------------------------------------------------------------------


async def test_the_last_failure_makes_a_dead_letter_with_everything(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, delivery="at-least-once", retryDelay="5ms", maxAttempts=3) as f:
        outcome = await f.call(b"poison", deliver=True, topic="a/b", headers=[("k", b"v")])
        assert (outcome.ok, outcome.attempts) == (False, 3)
        ((trigger, attempts, result, status, reason, size),) = rows(
            tmp_path, "SELECT trigger, attempts, result, status, reason, size FROM dead_letters"
        )
        assert (trigger, attempts, result, status) == ("t", 3, "replied", 500)
        assert "told to" in reason
        assert size > 0
        assert counters(f)["dead_letters"] == 1


async def test_dead_letters_are_capped_in_count_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    letters = {"deadLetters": {"maxCount": 5}}
    async with running(tmp_path, RECORD, delivery="at-least-once", maxAttempts=1, **letters) as f:
        for n in range(8):
            await f.call(b"%d" % n, deliver=True)
        assert rows(tmp_path, "SELECT count(*), min(id) FROM dead_letters") == [(5, 4)]
        assert counters(f)["dead_letters_dropped_count"] == 3


async def test_no_database_is_opened_where_nothing_has_to_be_kept(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, delivery="at-least-once") as f:
        await f.call(b"fine", deliver=True)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["t"]


# --- ids -------------------------------------------------------------------------------------------------------------

ONCE = {"delivery": "effectively-once", "idFrom": "header:id"}


async def test_an_event_that_was_handled_is_not_handled_again_also_after_a_restart(tmp_path: Path) -> None:
    for turn in range(3):
        async with running(tmp_path, RECORD, **ONCE) as f:
            outcomes = [await f.call(b"%d" % n, deliver=True, headers=[("id", str(n))]) for n in range(20)]
            assert all(outcome.ok for outcome in outcomes)
            assert counters(f).get("duplicates", 0) == (20 if turn else 0)
    assert bodies(tmp_path) == [str(n) for n in range(20)]


async def test_a_repeated_event_waits_for_the_first_one(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(0.3)\n    return 'slow'\n"
    async with running(tmp_path, code, **ONCE) as f:
        first = f.start(b"x", deliver=True, headers=[("id", "1")])
        second = f.start(b"x", deliver=True, headers=[("id", "1")])
        assert (await first).ok
        assert (await second).ok
        assert f.processor.statistics()["triggers"]["t"]["handled"] == 1


async def test_an_event_without_an_id_is_handled_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, **ONCE) as f:
        await asyncio.gather(*(f.call(b"x", deliver=True) for _ in range(2)))
        assert counters(f)["without_id"] == 2
    assert bodies(tmp_path) == ["x", "x"]


async def test_a_failed_event_may_come_again(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, retryDelay="1h", maxRetryDelay="1h", **ONCE) as f:
        outcome = f.start(b"x", deliver=True, headers=[("id", "1")])
        await eventually(lambda: f.processor.statistics()["triggers"]["t"]["retried"])
    assert (await outcome).result is Result.STOPPED
    (tmp_path / "fail").unlink()
    async with running(tmp_path, RECORD, **ONCE) as f:
        assert (await f.call(b"x", deliver=True, headers=[("id", "1")])).ok
    assert bodies(tmp_path) == ["x", "x"]


async def test_with_journal_and_ids_a_repeated_event_is_acknowledged_once_it_is_on_the_disk(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, **ONCE, **JOURNAL) as f:
        sent = [f.start(b"%d" % (n % 50), deliver=True, headers=[("id", str(n % 50))]) for n in range(200)]
        outcomes: list[Outcome] = await asyncio.gather(*sent)
        assert {outcome.status for outcome in outcomes} == {202}
        await eventually(lambda: waiting(f) == 0)
        assert counters(f)["duplicates"] == 150
    assert sorted(bodies(tmp_path), key=int) == [str(n) for n in range(50)]
