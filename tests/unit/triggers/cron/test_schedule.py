"""Schedules in time: fields, zones, changes of the clocks."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from agent.triggers.cron.schedule import Schedule, fields_of, zone_of

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # changes at midnight
    "America/Havana",  # changes at midnight
    "Africa/Cairo",  # changes at midnight
    "Africa/Casablanca",  # changes for Ramadan
    "Asia/Beirut",
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Chatham",  # 45 minutes beside the hour
    "Asia/Kolkata",
    "UTC",
]


def at(zone: str, *parts: int, fold: int = 0) -> float:
    return datetime(*parts, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[misc, arg-type]


def between(schedule: Schedule, floor: float, until: float) -> list[float]:
    return list(takewhile(lambda run: run <= until, schedule.after(floor)))


def days(zone: str, first: date, last: date) -> list[date]:
    """Every date there is between the two: one that a zone leaves out altogether is not in it."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", [0, 2, 3, 23])
@pytest.mark.parametrize("minute", [0, 30])
def test_a_daily_schedule_runs_exactly_once_a_day(zone: str, hour: int, minute: int) -> None:
    first, last = date(2025, 1, 1), date(2025, 12, 31)
    for expression in (f"{minute} {hour} * * *", f"7 {minute} {hour} * * *"):
        schedule = Schedule(expression, ZoneInfo(zone))
        runs = between(schedule, at(zone, 2025, 1, 1) - 1, at(zone, 2025, 12, 31, 23, 59, 59))
        assert Counter(schedule.local(run).date() for run in runs) == Counter(days(zone, first, last))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago", "Africa/Casablanca", "Australia/Lord_Howe"])
def test_a_rhythm_keeps_its_distance_through_every_change(zone: str) -> None:
    schedule = Schedule("*/30 * * * *", ZoneInfo(zone))
    runs = between(schedule, at(zone, 2024, 1, 1), at(zone, 2025, 1, 1))
    assert {later - earlier for earlier, later in pairwise(runs)} == {1800.0}


def test_a_skipped_time_runs_once_right_after_the_gap() -> None:
    schedule = Schedule("0,30 2 * * *", ZoneInfo("Europe/Berlin"))
    runs = between(schedule, at("Europe/Berlin", 2025, 3, 29, 12), at("Europe/Berlin", 2025, 3, 30, 23))
    assert runs == [at("Europe/Berlin", 2025, 3, 30, 3, 0)]


def test_a_repeated_time_runs_the_first_time_only_also_when_asked_in_between() -> None:
    schedule = Schedule("30 2 * * *", ZoneInfo("Europe/Berlin"))
    first = at("Europe/Berlin", 2025, 10, 26, 2, 30)
    assert between(schedule, first - 3600, first + 7200) == [first]
    assert next(schedule.after(first + 1800)) == at("Europe/Berlin", 2025, 10, 27, 2, 30)


def test_a_rhythm_within_one_hour_runs_in_both_passes_and_not_in_a_gap() -> None:
    schedule = Schedule("*/20 2 * * *", ZoneInfo("Europe/Berlin"))
    night = at("Europe/Berlin", 2025, 10, 26, 0)
    assert len(between(schedule, night, night + 86400)) == 6
    assert len(between(schedule, night + 5400, night + 86400)) == 6
    spring = at("Europe/Berlin", 2025, 3, 30, 0)
    assert between(schedule, spring, spring + 82800) == []


def test_a_rhythm_far_away_is_found_across_several_changes() -> None:
    schedule = Schedule("* * 1 1 *", ZoneInfo("Europe/Berlin"))
    assert next(schedule.after(at("Europe/Berlin", 2025, 2, 1))) == at("Europe/Berlin", 2026, 1, 1)


@pytest.mark.parametrize(
    ("expression", "runs"),
    [
        ("*/1 * * * * *", [1, 2, 3]),
        ("*/20 * * * * *", [20, 40, 60]),
        ("* * * * * *", [60, 120, 180]),
        ("5 */2 * * * *", [5, 125, 245]),
        ("@hourly", [3600, 7200, 10800]),
        ("@daily", [86400, 172800, 259200]),
        ("0 0 ? * *", [86400, 172800, 259200]),
        ("15 4 * * MON-FRI", [15300, 101700, 4 * 86400 + 15300]),  # 1970-01-01 was a Thursday
    ],
)
def test_expressions(expression: str, runs: list[int]) -> None:
    schedule = Schedule(expression, ZoneInfo("UTC"))
    assert list(islice(schedule.after(0), 3)) == runs


@pytest.mark.parametrize(
    "expression", ["", "* * *", "61 * * * *", "* * * * * * *", "0 0 31 2 *", "0 0 30 2 *", "a b c d e", "@often"]
)
def test_what_is_no_schedule_is_refused_with_its_text(expression: str) -> None:
    with pytest.raises(ValueError, match="schedule") as caught:
        Schedule(expression, ZoneInfo("UTC"))
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize("name", ["Europe/Nowhere", "../etc/passwd", "/etc/passwd", "Europe"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(name)


def test_the_systems_zone_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert str(zone_of("")) == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "EST5EDT4,M3.2.0")
    assert zone_of("") is not None
    monkeypatch.delenv("TZ")
    assert zone_of("") is not None


def test_recent_runs_are_found_without_walking_fifty_years() -> None:
    schedule = Schedule("*/1 * * * * *", ZoneInfo("Europe/Berlin"))
    now = datetime(2025, 6, 1, tzinfo=UTC).timestamp()
    assert schedule.recent(0, now + 0.5, 3) == [now - 2, now - 1, now]
    assert schedule.recent(now - 2, now + 0.5, 3) == [now - 1, now]
    assert len(schedule.recent(0, now, 100)) == 100
    assert schedule.recent(now, now + 0.5, 3) == []


@pytest.mark.parametrize("zone", ZONES)
def test_recent_is_the_end_of_the_whole_list(zone: str) -> None:
    schedule = Schedule("*/10 1,2 * * *", ZoneInfo(zone))
    floor, now = at(zone, 2025, 1, 1), at(zone, 2026, 1, 1)
    whole = between(schedule, floor, now)
    for limit in (1, 7, 100):
        assert schedule.recent(floor, now, limit) == whole[-limit:]


def test_fields_are_made_six() -> None:
    assert fields_of(" 1 2  3 4 5 ") == "0 1 2 3 4 5"
    assert fields_of("@Midnight") == "0 0 0 * * *"
