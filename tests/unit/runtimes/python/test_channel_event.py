"""Events out of the channel: every attribute, decoded lazily, assignable, outliving its record."""

from __future__ import annotations

import copy
import json
import pickle
import uuid
from datetime import datetime
from typing import Any

import nuclio_sdk
import pytest
from nuclio_sdk._worker.channel_event import event_class

from tests.support.fake_channel import FakeChannel, protocol


def take(channel: FakeChannel, decode: bool = True, canonical: bool = True) -> Any:
    record = channel.take()
    assert record is not None
    return event_class(channel, decode=decode, canonical=canonical)(record)  # type: ignore[arg-type]


def test_every_attribute(channel: FakeChannel) -> None:
    channel.put(
        b"on",
        timestamp_ns=1_700_000_000_999_999_999,
        offset=-7,
        shard_id=3,
        num_shards=4,
        content_type="text/x",
        method="POST",
        path="/ä",
        url="mqtt://h",
        topic="lamp/1",
        id="given",
        type="t",
        type_version="1",
        version="2",
        kind="http",
        name="web",
        headers=[("x-foo-bar", "1"), ("X-FOO-bar", "2"), ("content-type", "text/x")],
        fields=[("a", "1"), ("a", "2"), ("b", "")],
    )
    event = take(channel)
    assert isinstance(event, nuclio_sdk.Event)
    assert event.body == b"on" and event.size == 2
    assert event.timestamp == datetime(2023, 11, 14, 22, 13, 20) and event.timestamp.tzinfo is None
    assert (event.offset, event.shard_id, event.num_shards) == (-7, 3, 4)
    assert (event.content_type, event.method, event.path) == ("text/x", "POST", "/ä")
    assert (event.url, event.topic, event.id) == ("mqtt://h", "lamp/1", "given")
    assert (event.type, event.type_version, event.version) == ("t", "1", "2")
    assert (event.trigger.kind, event.trigger.name) == ("http", "web")
    assert event.headers == {"X-Foo-Bar": "2", "Content-Type": "text/x"}
    assert event.fields == {"a": "2", "b": ""}
    assert event.last_in_batch is False
    assert event.get_header("CONTENT-type") == "text/x" and event.get_header("none") is None


def test_defaults_of_an_empty_event(channel: FakeChannel) -> None:
    channel.put()
    event = take(channel)
    assert (event.body, event.path, event.method, event.content_type, event.topic) == (b"", "/", "", "", "")
    assert (event.headers, event.fields, event.shard_id, event.num_shards, event.offset) == ({}, {}, -1, 0, 0)
    assert event.timestamp == datetime(1970, 1, 1)


def test_nothing_is_decoded_before_it_is_read(channel: FakeChannel) -> None:
    channel.put(b"x" * 100, headers=[("a", b"\xff")])
    event = take(channel)
    assert event.method == ""
    assert channel.bodies_copied == 0
    assert event.body is event.body and channel.bodies_copied == 1


def test_attributes_are_assignable(channel: FakeChannel) -> None:
    channel.put(b"x", path="/old")
    event = take(channel)
    event.path, event.body, event.mine = "/new", {"a": 1}, 5
    event.headers["New"] = "1"
    assert (event.path, event.body, event.mine, event.headers) == ("/new", {"a": 1}, 5, {"New": "1"})
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = event.missing


@pytest.mark.parametrize(
    ("content_type", "flags", "body", "seen"),
    [
        ("application/json", 0, b'{"a": 1}', {"a": 1}),
        ("application/json; charset=utf-8", 0, b'{"a": 1}', b'{"a": 1}'),
        ("", 0, b'{"a": 1}', b'{"a": 1}'),
        ("application/cloudevents", protocol.JSON_BODY, b"[1]", [1]),
    ],
)
def test_json_body_only_for_the_exact_type(
    channel: FakeChannel, content_type: str, flags: int, body: bytes, seen: Any
) -> None:
    channel.put(body, flags, content_type=content_type)
    assert take(channel).body == seen


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_broken_json_stays_bytes(channel: FakeChannel, body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    channel.put(body, content_type="application/json")
    assert take(channel).body == body
    assert "not JSON" in capsys.readouterr().err


def test_ids_are_unique_uuids(channel: FakeChannel) -> None:
    seen = set()
    for _ in range(3):
        channel.put()
        event = take(channel)
        parsed = uuid.UUID(event.id)
        assert parsed.version == 4 and parsed.variant == uuid.RFC_4122 and str(parsed) == event.id
        seen.add(event.id)
        channel.release()
    assert len(seen) == 3


def test_an_id_of_a_huge_record_number(channel: FakeChannel) -> None:
    channel._next_id = 2**63
    channel.put()
    assert uuid.UUID(take(channel).id).variant == uuid.RFC_4122


def test_raw_query(channel: FakeChannel) -> None:
    channel.put(fields=b"a=1&b=x+y%20z&a=%C3%A4&&flag")
    assert take(channel).fields == {"a": "ä", "b": "x y z", "flag": ""}


def test_without_decoding_everything_is_bytes(channel: FakeChannel) -> None:
    channel.put(b"1", method="POST", headers=[("x-a", b"\xff")], fields=b"q=%ff", name="t", content_type="a/b")
    event = take(channel, decode=False)
    assert event.headers == {b"X-A": b"\xff"} and event.fields == {b"q": b"\xff"}
    assert event.method == b"POST" and event.content_type == b"a/b" and event.trigger.name == b"t"
    assert uuid.UUID(event.id.decode())
    assert event.get_header(b"x-A") == b"\xff"


def test_text_that_is_not_utf8_raises_where_it_is_read(channel: FakeChannel) -> None:
    channel.put(b"ok", headers=[("x-a", b"\xff")])
    event = take(channel)
    assert event.body == b"ok"
    with pytest.raises(UnicodeDecodeError):
        _ = event.headers


def test_names_stay_as_they_are_when_not_canonical(channel: FakeChannel) -> None:
    channel.put(headers=[("sensorId", "1")])
    assert take(channel, canonical=False).headers == {"sensorId": "1"}


def test_view_is_in_place_until_detached(channel: FakeChannel) -> None:
    channel.put(b"abc")
    event = take(channel)
    view = event.body_view
    assert bytes(view) == b"abc" and channel.bodies_copied == 0
    view.release()
    event.detach()
    channel.release()
    assert event.body == b"abc" and bytes(event.body_view) == b"abc"


def test_a_kept_event_is_whole(channel: FakeChannel) -> None:
    channel.put(b'{"a": 1}', content_type="application/json", headers=[("h", "1")])
    event = take(channel)
    event.detach()
    channel.release()
    assert vars(event)["body"] == {"a": 1} and vars(event)["headers"] == {"H": "1"}
    assert json.loads(event.to_json())["headers"] == {"H": "1"}
    for twin in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert type(twin) is nuclio_sdk.Event and twin.body == {"a": 1} and twin.id == event.id


def test_to_json(channel: FakeChannel) -> None:
    channel.put(b"\x80abc", kind="http", name="web", timestamp_ns=10**9)
    fields = json.loads(repr(take(channel)))
    assert fields["body"] == "gGFiYw==" and fields["trigger"] == {"kind": "http", "name": "web"}
    assert fields["timestamp"] == "1970-01-01 00:00:01" and fields["last_in_batch"] is False
    assert not [name for name in fields if name.startswith("_")]
