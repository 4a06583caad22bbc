"""The cron trigger on a clock that the test sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from agent.model.duration import parse_duration
from agent.model.event import Outcome, Result
from agent.model.spec import Duration
from agent.triggers.cron.progress import LastRun, Progress
from agent.triggers.cron.runs import QUEUE_LIMIT, Runs
from agent.triggers.cron.schedule import Schedule
from agent.triggers.cron.trigger import CronSpec, follow_interval, follow_schedule, persists, run
from tests.support.eventually import eventually
from tests.support.recording_sink import RecordingSink

NOON = datetime(2025, 6, 2, 12, tzinfo=UTC).timestamp()
EVERY_MINUTE = "* * * * *"


def make(**keys: Any) -> CronSpec:
    """A spec from keys as they stand in a file."""
    return msgspec.convert({"kind": "cron", **keys}, CronSpec, dec_hook=lambda kind, text: parse_duration(text))


class SetClock:
    """A clock that stands until the test sets it; whoever sleeps on it hears of that at once."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        self._moved.clear()
        if when > self._now:
            await self._moved.wait()

    async def set(self, now: float) -> None:
        """Set it, and let everybody act on it."""
        self._now = now
        self._moved.set()
        for _ in range(200):
            await asyncio.sleep(0)

    async def walk(self, to: float, step_s: float = 5.0) -> None:
        while self._now < to:
            await self.set(min(to, self._now + step_s))


class Rig:
    """A schedule being followed; `made` counts the runs."""

    def __init__(self, sink: RecordingSink, clock: SetClock) -> None:
        self.sink, self.clock = sink, clock

    @property
    def made(self) -> int:
        return len(self.sink.events)


@asynccontextmanager
async def following(
    state: Path,
    schedule: str = EVERY_MINUTE,
    *,
    missed: Any = "once",
    queue: bool = False,
    made: float | None = None,
    now: float = NOON,
    last: LastRun | None = None,
) -> AsyncIterator[Rig]:
    sink, clock = RecordingSink(state), SetClock(now)
    runs = Runs(sink, CronSpec(kind="cron", schedule=schedule).event.make, queue=queue, jitter_s=0, last=last)
    task = asyncio.create_task(follow_schedule(Schedule(schedule, ZoneInfo("UTC")), missed, made, clock, sink, runs))
    await clock.set(now)
    try:
        yield Rig(sink, clock)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_schedule_runs_at_its_times_and_not_at_the_start(tmp_path: Path) -> None:
    async with following(tmp_path) as rig:
        assert rig.made == 0
        await rig.clock.walk(NOON + 55)
        assert rig.made == 0
        await rig.clock.walk(NOON + 60)
        assert rig.made == 1
        await rig.clock.walk(NOON + 600)
        assert rig.made == 10
        assert not rig.sink.counters


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("once", 1), ("all", 60)])
async def test_a_clock_set_forward_makes_what_missed_says(tmp_path: Path, missed: str, expected: int) -> None:
    async with following(tmp_path, missed=missed) as rig:
        await rig.clock.set(NOON + 3600 + 30)
        assert rig.made == expected
        assert rig.sink.counters["missed"] == 60 - expected
        await rig.clock.walk(NOON + 3600 + 60)
        assert rig.made == expected + 1


async def test_never_a_burst_all_are_made_one_after_the_other(tmp_path: Path) -> None:
    async with following(tmp_path, missed="all") as rig:
        rig.sink.hold = True
        await rig.clock.set(NOON + 300)
        for made in (1, 2, 3, 4, 5):
            assert rig.made == made
            assert len(rig.sink.held) == 1
            rig.sink.finish_held()
        assert not rig.sink.held


async def test_fifty_years_forward_are_bounded(tmp_path: Path) -> None:
    async with following(tmp_path, "*/1 * * * * *", missed="all") as rig:
        await rig.clock.set(NOON + 50 * 365 * 86400)
        await eventually(lambda: rig.made == QUEUE_LIMIT and not rig.sink.in_flight)
        assert rig.made == QUEUE_LIMIT


async def test_a_clock_set_back_a_little_repeats_nothing(tmp_path: Path) -> None:
    async with following(tmp_path) as rig:
        await rig.clock.walk(NOON + 600)
        assert rig.made == 10
        await rig.clock.set(NOON + 1)
        await rig.clock.walk(NOON + 600)
        assert rig.made == 10
        await rig.clock.walk(NOON + 660)
        assert rig.made == 11


async def test_a_clock_set_back_before_the_first_run_does_not_silence_the_schedule(tmp_path: Path) -> None:
    async with following(tmp_path) as rig:
        await rig.clock.set(NOON - 1800)
        await rig.clock.walk(NOON - 1740)
        assert rig.made == 1


async def test_a_clock_set_back_years_goes_on_at_once_and_repeats_nothing_when_it_returns(tmp_path: Path) -> None:
    async with following(tmp_path, missed="all") as rig:
        await rig.clock.walk(NOON + 60)
        assert rig.made == 1
        await rig.clock.set(5.0)  # 1970: the battery clock was lost
        assert rig.made == 1
        await rig.clock.walk(60.0)
        assert rig.made == 2
        await rig.clock.set(NOON + 150)  # and NTP found the time again: one run fell in between
        assert rig.made == 3


async def test_a_late_wake_up_is_still_on_time(tmp_path: Path) -> None:
    async with following(tmp_path, missed="skip") as rig:
        await rig.clock.set(NOON + 65)
        assert rig.made == 1
        await rig.clock.set(NOON + 135)
        assert rig.made == 1
        assert rig.sink.counters["missed"] == 1


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("once", 1), ("all", 5)])
async def test_runs_missed_while_down(tmp_path: Path, missed: str, expected: int) -> None:
    async with following(tmp_path, missed=missed, made=NOON - 300) as rig:
        assert rig.made == expected
        await rig.clock.walk(NOON + 60)
        assert rig.made == expected + 1


async def test_a_start_on_a_lost_clock_waits_for_no_future(tmp_path: Path) -> None:
    """The last run lies ahead of a clock that starts in 1970; what was made is not made again when NTP comes."""
    async with following(tmp_path, "0 4 * * *", made=NOON - 8 * 3600, now=0.0) as rig:
        assert rig.made == 0
        await rig.clock.set(NOON)
        assert rig.made == 0


async def test_a_long_handler_costs_runs_not_punctuality(tmp_path: Path) -> None:
    async with following(tmp_path) as rig:
        rig.sink.hold = True
        await rig.clock.walk(NOON + 180)
        assert rig.made == 1
        assert rig.sink.counters["overlapped"] == 2
        rig.sink.finish_held()
        await rig.clock.walk(NOON + 240)
        assert rig.made == 2


async def test_concurrency_queue_keeps_them_in_order_and_bounded(tmp_path: Path) -> None:
    async with following(tmp_path, queue=True) as rig:
        rig.sink.hold = True
        await rig.clock.walk(NOON + 60 * (QUEUE_LIMIT + 3), step_s=60)
        assert rig.made == 1
        assert rig.sink.counters["overlapped"] == 2
        for made in range(2, QUEUE_LIMIT + 2):
            rig.sink.finish_held()
            assert rig.made == made


async def test_the_last_run_is_written_when_it_has_ended(tmp_path: Path) -> None:
    last = LastRun(tmp_path, EVERY_MINUTE)
    async with following(tmp_path, last=last) as rig:
        rig.sink.hold = True
        await rig.clock.walk(NOON + 60)
        assert last.read() is None
        rig.sink.finish_held()
        assert last.read() == NOON + 60


async def test_a_run_that_never_began_is_not_remembered(tmp_path: Path) -> None:
    last = LastRun(tmp_path, EVERY_MINUTE)
    async with following(tmp_path, last=last) as rig:
        rig.sink.answer = lambda event: Outcome(Result.STOPPED)
        await rig.clock.walk(NOON + 60)
        assert rig.made == 1
        assert last.read() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": null}', '{"at": "x", "schedule": "* * * * *"}'])
def test_a_broken_or_foreign_file_is_no_last_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "last-run.json").write_text(text)
    assert LastRun(tmp_path, EVERY_MINUTE).read() is None
    LastRun(tmp_path, "5 * * * *").write(NOON)
    assert LastRun(tmp_path, EVERY_MINUTE).read() is None
    assert LastRun(tmp_path, "5 * * * *").read() == NOON


def test_a_last_run_far_in_the_future_is_not_waited_for() -> None:
    assert Progress(NOON, NOON + 86400).floor(NOON) == NOON
    assert Progress(NOON, NOON + 600).floor(NOON) == NOON + 600


@asynccontextmanager
async def counting(
    state: Path, every_s: float, missed: Any = "once", away_s: float | None = None
) -> AsyncIterator[Rig]:
    sink, clock = RecordingSink(state), SetClock(1000.0)
    runs = Runs(sink, CronSpec(kind="cron", interval=Duration(every_s)).event.make, queue=False, jitter_s=0)
    task = asyncio.create_task(follow_interval(every_s, missed, away_s, clock, sink, runs))
    await clock.set(1000.0)
    try:
        yield Rig(sink, clock)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_interval_counts_from_the_start(tmp_path: Path) -> None:
    async with counting(tmp_path, 10.0) as rig:
        await rig.clock.walk(1009.0)
        assert rig.made == 0
        await rig.clock.walk(1030.0)
        assert rig.made == 3


async def test_a_stalled_machine_costs_an_interval_its_runs_not_its_beat(tmp_path: Path) -> None:
    async with counting(tmp_path, 10.0) as rig:
        await rig.clock.set(1034.0)
        assert rig.made == 1
        assert rig.sink.counters["missed"] == 2
        await rig.clock.set(1040.0)
        assert rig.made == 2


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("once", 1), ("all", 3)])
async def test_an_interval_missed_while_down(tmp_path: Path, missed: str, expected: int) -> None:
    async with counting(tmp_path, 10.0, missed, away_s=35.0) as rig:
        assert rig.made == expected
        await rig.clock.set(1010.0)
        assert rig.made == expected + 1


async def test_an_interval_goes_on_where_it_was_before_a_restart(tmp_path: Path) -> None:
    async with counting(tmp_path, 10.0, away_s=4.0) as rig:
        await rig.clock.set(1006.0)
        assert rig.made == 1


async def test_the_trigger_makes_exactly_the_configured_event(tmp_path: Path) -> None:
    event = {"body": "ping", "headers": {"X-Kind": "beat", "X-Count": 3}, "path": "/beat", "method": "POST"}
    sink = RecordingSink(tmp_path)
    spec = make(interval="5ms", event=event)
    task = asyncio.create_task(run(spec, sink))
    await eventually(lambda: len(sink.events) >= 2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    first, second = sink.events[:2]
    assert first is not second
    assert (bytes(first.body), first.path, first.method, first.timestamp_ns) == (b"ping", "/beat", "POST", 0)
    assert list(first.headers) == [("X-Kind", "beat"), ("X-Count", "3")]
    assert sink.state == "up"
    assert sink.released
    assert not sink.in_flight


async def test_jitter_delays_a_run_and_is_forgotten_at_the_end(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    runs = Runs(sink, CronSpec(kind="cron", interval=Duration(1)).event.make, queue=False, jitter_s=0.002)
    runs.start([NOON])
    assert not sink.events
    await eventually(lambda: sink.events)
    await sink.drained()
    runs.start([NOON])
    runs.close()
    assert len(sink.events) == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "one of the two"),
        ({"interval": "1s", "schedule": EVERY_MINUTE}, "one of the two"),
        ({"schedule": "* * *"}, "3 fields"),
        ({"schedule": EVERY_MINUTE, "timezone": "Mars/Base"}, "Mars/Base"),
        ({"schedule": "@every never"}, "never"),
        ({"interval": "0s"}, "at least 1ms"),
        ({"schedule": EVERY_MINUTE, "missed": "twice"}, "twice"),
    ],
)
def test_wrong_keys_are_refused_with_their_reason(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        make(**keys)


def test_every_is_an_interval() -> None:
    assert make(schedule="@every 1m30s").every_s == 90.0
    assert make(schedule="@Every 5s").when == "every 5s"
    assert make(schedule="0  4 * * *", timezone="Europe/Berlin").when == "0 4 * * * Europe/Berlin"


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({"schedule": EVERY_MINUTE}, True),
        ({"schedule": "*/30 * * * * *"}, False),
        ({"schedule": "0,30 0 4 * * *"}, False),
        ({"interval": "1m"}, True),
        ({"interval": "59s"}, False),
    ],
)
def test_only_runs_a_minute_apart_are_persisted(tmp_path: Path, keys: dict[str, Any], kept: bool) -> None:
    sink: Any = RecordingSink(tmp_path)
    assert persists(make(**keys, persist=True), sink) is kept
    assert persists(make(**keys), sink) is False


async def test_persist_makes_up_for_an_interval_missed_across_a_restart(tmp_path: Path) -> None:
    spec = make(interval="1h", persist=True)
    LastRun(tmp_path, spec.when).write(time.time() - 7000)
    sink = RecordingSink(tmp_path)
    task = asyncio.create_task(run(spec, sink))
    await eventually(lambda: sink.events and not sink.in_flight)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    kept = LastRun(tmp_path, spec.when).read()
    assert kept is not None
    assert time.time() - kept < 60
    assert not sink.released
