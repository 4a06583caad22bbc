"""Cron trigger: runs the function every so often, or at the times of a schedule.

Flow: clock -> [schedule, progress] -> due -> [runs] -> sink. Promise: at most one run at a time, never a burst. An
interval is counted on the monotonic clock, which nobody can set. A schedule is read on the wall clock; when that one
jumps, or the device was off, the runs it stepped over are treated as `missed` says. The rule for daylight saving is in
schedule.py, the rule for a clock that goes backward in progress.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Literal

from agent.model.configured_event import ConfiguredEvent
from agent.model.duration import parse_duration
from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.model.spec import Duration, TriggerSpec
from agent.triggers.cron.clock import Clock, SteadyClock, open_wall_clock
from agent.triggers.cron.progress import LastRun, Progress
from agent.triggers.cron.runs import QUEUE_LIMIT, Runs
from agent.triggers.cron.schedule import Schedule, zone_of

ON_TIME_S = 10.0
"""A run that is this late is still on time, not missed: a busy machine is no reason to leave one out."""

PERSIST_FROM_S = 60.0
"""Schedules more frequent than this are not persisted: a card would wear out for runs that soon come again."""


FOREVER_S = 10.0 * 365 * 86400

Missed = Literal["skip", "once", "all"]


class CronSpec(TriggerSpec, frozen=True, kw_only=True):
    """Either `interval` or `schedule`."""

    interval: Duration | None = None
    schedule: str = ""
    timezone: str = ""
    event: ConfiguredEvent = ConfiguredEvent()
    missed: Missed = "once"
    persist: bool = False
    jitter: Duration = Duration(0)
    concurrency: Literal["skip", "queue"] = "skip"
    concurrency_policy: str = (
        ""  # of the Kubernetes job that nuclio can make of a cron trigger: accepted, no meaning here
    )
    job_backoff_limit: int | None = None  # the same

    def __post_init__(self) -> None:
        if (self.interval is None) == (not self.schedule):
            raise ValueError(
                "cron needs `interval` (such as 10s) or `schedule` (such as '*/5 * * * *'), one of the two"
            )
        if self.every_s is None:
            Schedule(self.schedule, zone_of(self.timezone))
        elif self.every_s < 0.001:
            raise ValueError("the interval of a cron trigger is at least 1ms")
        if self.jitter < 0:
            raise ValueError("jitter is not negative")

    @property
    def every_s(self) -> float | None:
        """Seconds between two runs when they are counted, None when they follow a schedule."""
        if self.interval is not None:
            return float(self.interval)
        word, _, rest = self.schedule.strip().partition(" ")
        return float(parse_duration(rest.strip())) if word.lower() == "@every" else None

    @property
    def when(self) -> str:
        """For people and for the state file: what the runs follow."""
        if self.every_s is not None:
            return f"every {self.every_s:g}s"
        return " ".join([*self.schedule.split(), *self.timezone.split()])


@trigger(CronSpec)
async def run(spec: CronSpec, sink: Sink) -> None:
    """Runs until cancelled. The run a worker has in hand is waited for; those that wait are not begun."""
    last = LastRun(sink.state_dir, spec.when) if persists(spec, sink) else None
    runs = Runs(sink, spec.event.make, queue=spec.concurrency == "queue", jitter_s=spec.jitter, last=last)
    made = last.read() if last else None
    try:
        sink.up(spec.when)
        if spec.every_s is not None:
            away_s = None if made is None else time.time() - made
            await follow_interval(spec.every_s, spec.missed, away_s, SteadyClock(), sink, runs)
        else:
            schedule = Schedule(spec.schedule, zone_of(spec.timezone))
            with open_wall_clock() as clock:
                await follow_schedule(schedule, spec.missed, made, clock, sink, runs)
    finally:
        runs.close()
        if last is None:  # else a successor would read the file before the run in hand is written there, and repeat it
            sink.release()
        await sink.drained()


def persists(spec: CronSpec, sink: Sink) -> bool:
    """Whether the last run is kept in a file: wanted, and not so frequent that it would wear out a card."""
    if not spec.persist:
        return False
    if spec.every_s is not None:
        shortest_s = spec.every_s
    else:
        coming = islice(Schedule(spec.schedule, zone_of(spec.timezone)).after(time.time()), 25)
        shortest_s = min((later - earlier for earlier, later in pairwise(coming)), default=PERSIST_FROM_S)
    if shortest_s < PERSIST_FROM_S:
        sink.log.warning("runs more frequent than once a minute are not persisted", schedule=spec.when)
    return shortest_s >= PERSIST_FROM_S


async def follow_interval(
    every_s: float, missed: Missed, away_s: float | None, clock: Clock, sink: Sink, runs: Runs
) -> None:
    """A run every `every_s`, for ever. `away_s`: seconds since the last run, before this start; None if not known."""
    due = clock.now() + every_s
    if away_s is not None and 0 <= away_s < every_s:
        due -= away_s
    elif away_s is not None and away_s >= every_s:
        start_late(runs, sink, missed, [time.time()] * min(int(away_s / every_s), QUEUE_LIMIT), away_s)
    while True:
        while clock.now() < due:
            await clock.sleep_until(due)
        late = int((clock.now() - due) / every_s)  # whole intervals: a stalled machine; they become one run
        due += (late + 1) * every_s
        if late:
            sink.count("missed", late)
        runs.start([time.time()])


async def follow_schedule(
    schedule: Schedule, missed: Missed, made: float | None, clock: Clock, sink: Sink, runs: Runs
) -> None:
    """A run at every instant of the schedule, for ever. `made`: the last run before this start; None if not known."""
    progress = Progress(clock.now(), made)
    while True:
        now = clock.now()
        floor = progress.floor(now)
        due = next(schedule.after(floor), None)
        if due is None or due > now:
            await clock.sleep_until(now + FOREVER_S if due is None else due)
            continue
        passed = schedule.recent(floor, now, QUEUE_LIMIT)
        on_time = len(passed) == 1 and now - passed[-1] <= ON_TIME_S
        progress.passed(passed[-1], made=on_time or missed != "skip")
        if on_time:
            runs.start(passed)
        else:
            start_late(runs, sink, missed, passed, now - passed[0])


def start_late(runs: Runs, sink: Sink, missed: Missed, passed: Sequence[float], late_s: float) -> None:
    """Deal with runs whose time went by, the first `late_s` ago: the clock jumped, the device was off or too busy."""
    wanted = {"skip": passed[:0], "once": passed[-1:], "all": passed}[missed]
    sink.count("missed", len(passed) - len(wanted))
    if late_s > ON_TIME_S:
        sink.log.warning("runs were missed", missed=len(passed), policy=missed, made_now=len(wanted))
    runs.start(wanted)
