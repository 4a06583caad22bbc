"""Bounds, age and marks of one target, on a clock of the test's own."""

from __future__ import annotations

from loguru import logger

from agent.model.outlet import Message, Parcel
from agent.model.spec import Duration, Outbox
from agent.processor.outbox.target import Target


class Clocked(Target):
    """In memory only."""

    now = 1000

    @property
    def at(self) -> int:
        return self.now


def target_with(**keys: object) -> Clocked:
    spec = Outbox(**keys)  # type: ignore[arg-type]
    return Clocked("cloud", "f", spec, None, logger, lambda: None)


def publish(target: Target, *topics: str) -> None:
    for topic in topics:
        message = Message(topic, b"x" * 936)
        _, parcel = target.parcel(message, target.size_of(message))
        target.admit(parcel)


def taken(target: Target) -> Parcel:
    parcel = target.take()
    assert parcel is not None
    return parcel


async def test_what_waited_long_is_marked_and_what_did_not_is_not() -> None:
    target = target_with(historical_after=Duration(60.0))
    publish(target, "t")
    target.now += 61
    publish(target, "t")
    old, fresh = taken(target), taken(target)
    assert old.marks == [("X-Headrace-Seq", "1"), ("X-Headrace-Historical", "true"), ("X-Headrace-Age", "61")]
    assert fresh.marks == [("X-Headrace-Seq", "2")]
    assert target.statistics()["historical"] == 1
    assert target.statistics()["oldest_s"] == 61  # in flight counts
    target.close()


async def test_what_is_too_old_is_not_given_out() -> None:
    target = target_with(max_age=Duration(100.0))
    publish(target, "a", "b")
    target.now += 101
    publish(target, "c")
    assert taken(target).message.topic == "c"
    assert target.statistics()["dropped"] == {"age": 2}
    assert (target.count, target.bytes) == (1, 1001)
    target.close()


async def test_a_clock_that_goes_backwards_neither_drops_nor_marks() -> None:
    target = target_with()
    publish(target, "a")
    target.now -= 900
    assert taken(target).marks == [("X-Headrace-Seq", "1")]
    assert target.statistics()["oldest_s"] == 0
    target.close()


async def test_only_confirmation_makes_room() -> None:
    target = target_with(max_bytes=65536)
    publish(target, *["t"] * 65)
    assert not target.has_room(1001)
    parcel = taken(target)
    assert not target.has_room(1001)
    target.confirmed(parcel)
    assert target.has_room(1001)
    assert target.statistics() | {"why": ""} == {
        "queued": 64,
        "bytes": 64 * 1001,
        "in_flight": 0,
        "sent": 1,
        "historical": 0,
        "dropped": {},
        "oldest_s": 0,
        "up": False,
        "address": "",
        "why": "",
    }
    target.close()


async def test_room_is_made_of_the_oldest_that_is_not_in_flight() -> None:
    target = target_with(max_bytes=65536)
    publish(target, *["t"] * 65)
    first = taken(target)
    assert target.make_room(1001)
    assert target.statistics()["dropped"] == {"oldest": 1}
    assert (first.number, taken(target).number) == (1, 3)
    target.close()


async def test_numbers_show_a_gap_where_one_was_dropped() -> None:
    target = target_with()
    publish(target, "a", "b", "c")
    taken(target)
    assert target.make_room(1, "disk")
    assert taken(target).number == 3
    target.close()
