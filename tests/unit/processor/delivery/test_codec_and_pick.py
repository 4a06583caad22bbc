"""Records keep every field and know damage; keys and ids are found wherever a spec says they are."""

from __future__ import annotations

import random

import pytest

from agent.model.event import Event, Outcome, Result
from agent.processor.delivery.codec import (
    Damaged,
    decode_event,
    decode_reply,
    encode_event,
    encode_reply,
    late_event,
)
from agent.processor.delivery.pick import id_picker, mark_of, picker

EVENT = Event(
    body=b"\x00\xffbody",
    content_type="text/plain",
    headers=[("a", "b"), (b"c", b"\xff")],
    fields=b"x=1&y=2",
    method="POST",
    path=b"/p\xff",
    url="http://h/p",
    topic="t/u",
    id="id",
    timestamp_ns=1_700_000_000_123_456_789,
    type="type",
    type_version="1",
    version="1.0",
    shard_id=3,
    num_shards=7,
    offset=1 << 40,
    source="source",
    json_body=True,
    log_level="info",
)


def test_every_field_comes_back() -> None:
    assert decode_event(encode_event(EVENT)) == EVENT


@pytest.mark.parametrize("body", [b"", bytearray(b"abc"), memoryview(b"abc"), b"x" * 3_000_000])
def test_bodies_of_every_kind(body: bytes) -> None:
    assert decode_event(encode_event(Event(body=body))).body == bytes(body)


def test_an_event_costs_little_more_than_it_holds() -> None:
    event = Event(body=bytes(128), path=b"sensors/boiler", topic=b"sensors/boiler", id=b"17", timestamp_ns=1 << 60)
    assert len(encode_event(event)) < 128 + 2 * 14 + 40


def test_a_changed_bit_is_known() -> None:
    record = encode_event(EVENT)
    chance = random.Random(1)
    for _ in range(300):
        at = chance.randrange(len(record))
        changed = record[:at] + bytes([record[at] ^ 1 << chance.randrange(8)]) + record[at + 1 :]
        with pytest.raises(Damaged):
            decode_event(changed)
    for end in (0, 3, 5, len(record) - 1):
        with pytest.raises(Damaged):
            decode_event(record[:end])


def test_a_reply_comes_back() -> None:
    outcome = Outcome(Result.REPLIED, 201, "text/plain", [("a", "b")], b"\xff")
    assert decode_reply(encode_reply(outcome)) == outcome
    with pytest.raises(Damaged):
        decode_reply(encode_event(EVENT))


def test_late_events_say_so_and_how_often_they_were_tried() -> None:
    assert late_event(Event(headers=[("a", "b")]), 0).headers == [("a", "b"), ("X-Headrace-Late", "true")]
    assert late_event(Event(), 3).headers[-1] == ("X-Headrace-Attempts", "3")


@pytest.mark.parametrize(
    ("text", "event", "found"),
    [
        ("topic", Event(topic=b"a/b"), b"a/b"),
        ("path", Event(path="/x"), "/x"),
        ("message-id", Event(id="7"), "7"),
        ("header:Device", Event(headers=[(b"other", b"1"), (b"DEVICE", b"2")]), b"2"),
        ("header:device", Event(headers=[("Device", "2")]), "2"),
        ("header:device", Event(), b""),
        ("field:d", Event(fields=b"c=1&d=a%20b"), "a b"),
        ("field:d", Event(fields=[(b"d", b"2")]), b"2"),
        ("field:d", Event(fields=b"c=1"), ""),
        ("body:d", Event(body=b'{"c": 1, "d": "x"}'), "x"),
        ("body:d", Event(body=b'{"d": 17}'), b"17"),
        ("body:d", Event(body=b'{"c": 17}'), b""),
        ("body:d", Event(body=b"[1]"), b""),
        ("body:d", Event(body=b"\xff{"), b""),
    ],
)
def test_parts_of_an_event(text: str, event: Event, found: bytes | str) -> None:
    pick = picker(text)
    assert pick is not None
    assert pick(event) == found


def test_none_is_none() -> None:
    assert picker("none") is None
    assert picker("") is None


def test_a_cloud_event_is_known_by_source_and_id() -> None:
    pick = id_picker("", "header:id")
    one = Event(id="1", source="a", type="t", version="1.0")
    other = Event(id="1", source="b", type="t", version="1.0")
    assert pick(one) != pick(other)
    assert pick(Event(id="1")) == b""
    assert pick(Event(headers=[("id", "x")])) == "x"
    assert id_picker("header:h", "header:id")(one) == b""  # what was said counts alone


def test_marks_differ_by_trigger_and_not_by_spelling() -> None:
    assert mark_of("a", "x") != mark_of("b", "x")
    assert mark_of("a", "x") == mark_of("a", b"x")
    assert len(mark_of("a" * 200, b"\xff" * 1000)) == 16
