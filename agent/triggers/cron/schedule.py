"""Cron expressions as a sequence of instants, in a time zone.

Flow: expression and zone -> `Schedule.after(instant)` -> the trigger sleeps until the first. cronsim only ever sees
local times without a zone; what a change of the clocks does to them is decided here, in one rule:

- a schedule with fixed minutes and hours ("30 2 * * *") means times of day: a time that a change skips runs once, right
  after the gap, and a time that comes twice runs the first time only;
- a schedule with `*` in its minutes or hours ("*/10 * * * *") means a rhythm: it goes on with the time that really
  passes, so it runs in both passes of a repeated hour and not at all in a skipped one.

This is the rule of Debian's cron. Promise: `after` never yields the same instant twice and always grows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_DAY_S = 86400
_EPOCH = datetime(1970, 1, 1)


class Schedule:
    """A parsed expression. Raises ValueError, with what is wrong, when it cannot be one."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._fields = fields_of(expression)
        self._zone = zone
        minute, hour = self._fields.split()[1:3]
        self._rhythm = minute.startswith("*") or hour.startswith("*")
        self._check(expression)

    def after(self, instant: float) -> Iterator[float]:
        """Every run later than `instant` (seconds since 1970), in order; ends where none comes within 50 years."""
        return self._by_rhythm(int(instant // 1)) if self._rhythm else self._by_time_of_day(int(instant // 1))

    def recent(self, floor: float, now: float, limit: int) -> list[float]:
        """The last runs in (floor, now], at most `limit`, oldest first. Quick however far apart the two are."""
        found = self._first_in(floor, now, limit + 1)
        low, high = floor, now
        while len(found) > limit and high - low > 1:  # more than `limit` lie after low, at most `limit` after high
            middle = (low + high) / 2
            if len(self._first_in(middle, now, limit + 1)) > limit:
                low = middle
            else:
                high = middle
        return found if len(found) <= limit else self._first_in(high, now, limit)

    def local(self, instant: float) -> datetime:
        """`instant` as a date and time in the schedule's zone."""
        return datetime.fromtimestamp(instant, self._zone)

    def _first_in(self, floor: float, now: float, limit: int) -> list[float]:
        return list(islice(takewhile(lambda at: at <= now, self.after(floor)), limit))

    def _check(self, expression: str) -> None:
        try:
            found = next(iter(CronSim(self._fields, datetime(2024, 1, 1))), None)
        except CronSimError as error:
            raise ValueError(f"{str(error).lower()} in schedule {expression!r}") from error
        if found is None:
            raise ValueError(f"schedule {expression!r} names a day that never comes")

    def _by_time_of_day(self, instant: int) -> Iterator[float]:
        for naive in CronSim(self._fields, self.local(instant).replace(tzinfo=None, fold=0)):
            at = self._first_instant(naive)
            if at > instant:  # two skipped times fall on the same instant, a repeated one lies behind us
                instant = at
                yield float(at)

    def _first_instant(self, naive: datetime) -> int:
        """When the local time `naive` comes for the first time; where it is skipped, the end of the gap."""
        first = _seconds(naive) - self._offset_of(naive, fold=0)
        second = _seconds(naive) - self._offset_of(naive, fold=1)
        if second >= first:
            return first
        before = self._offset_of(
            naive, fold=0
        )  # in a gap, fold 0 is the offset before it: `second` lies before its end
        return _bisect(second, first, lambda at: self._offset(at) != before)

    def _by_rhythm(self, instant: int) -> Iterator[float]:
        offset = self._offset(instant)
        while True:
            change = None
            for naive in CronSim(self._fields, _EPOCH + timedelta(seconds=instant + offset)):
                at = _seconds(naive) - offset
                change = self._change(instant, at, offset)
                if change is not None:
                    break
                instant = at
                yield float(at)
            if change is None:
                return
            instant, offset = change - 1, self._offset(change)

    def _change(self, after: int, until: int, offset: int) -> int | None:
        """The first instant in (after, until] whose offset from UTC is another one."""
        for probe in range(after, until, _DAY_S):
            end = min(probe + _DAY_S, until)
            if self._offset(end) != offset:
                return _bisect(probe, end, lambda at: self._offset(at) != offset)
        return None

    def _offset(self, instant: int) -> int:
        return _whole(datetime.fromtimestamp(instant, self._zone).utcoffset())

    def _offset_of(self, naive: datetime, fold: int) -> int:
        return _whole(naive.replace(tzinfo=self._zone, fold=fold).utcoffset())


def fields_of(expression: str) -> str:
    """Six fields, seconds first, as cronsim reads them. Raises ValueError.

    A lone `*` for the seconds means 0: nuclio reads it so, and its users' schedules must not run sixty times as often.
    Write `*/1` for every second.
    """
    text = NICKNAMES.get(expression.strip().lower(), expression)
    fields = text.replace("?", "*").split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise ValueError(
            f"schedule {expression!r} has {len(fields)} fields; write 5 (minute hour day month weekday), "
            f"6 (seconds first), '@every 5s', or one of {', '.join(sorted(NICKNAMES))}"
        )
    if fields[0] == "*":
        fields[0] = "0"
    return " ".join(fields)


def zone_of(name: str) -> tzinfo:
    """The named zone, or the system's when the name is empty. Raises ValueError."""
    if not name:
        return _system_zone()
    if name == "UTC":
        return UTC  # also where the machine has no time zones at all
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone {name!r} on this machine; write one such as 'Europe/Berlin' (or: apt install tzdata)"
        ) from error


def _system_zone() -> tzinfo:
    try:
        return ZoneInfo(os.environ["TZ"].lstrip(":"))
    except (KeyError, ZoneInfoNotFoundError, ValueError, OSError):
        pass  # not set, or a rule in place of a name: fall back on the machine's own file
    try:
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC


def _bisect(low: int, high: int, passed: Callable[[int], bool]) -> int:
    """The first integer in (low, high] that `passed`; it holds at high and, once true, stays true."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passed(middle) else (middle, high)
    return high


def _seconds(naive: datetime) -> int:
    return int(naive.replace(tzinfo=UTC).timestamp())


def _whole(offset: timedelta | None) -> int:
    return int(offset.total_seconds()) if offset else 0
