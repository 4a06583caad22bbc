"""nuclio_sdk as functions import it."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from typing import Any

import nuclio_sdk
import nuclio_sdk.json_encoder
import pytest
from nuclio_sdk import Context, Event, EventDeserializerKinds, Logger, Platform, QualifiedOffset, TriggerInfo

from tests.support.tools import need_module

from .conftest import SDK

EXPORTS = {
    "Logger",
    "Context",
    "Event",
    "TriggerInfo",
    "EventDeserializerKinds",
    "Platform",
    "Response",
    "ExceptionWithResponse",
    "QualifiedOffset",
}
MODULES = "logger json_encoder event response platform qualified_offset exceptions helpers context"


def test_exports() -> None:
    assert set(nuclio_sdk.__all__) == EXPORTS
    for name in EXPORTS:
        assert getattr(nuclio_sdk, name)
    for name in MODULES.split():
        importlib.import_module(f"nuclio_sdk.{name}")
    assert nuclio_sdk.event.EventDeserializerKinds is EventDeserializerKinds
    with pytest.raises(AttributeError):
        _ = nuclio_sdk.Nothing


def test_importing_it_is_light() -> None:
    """What an import drags in is paid for by every worker at every start."""
    program = (
        "import sys; before = set(sys.modules); import nuclio_sdk, nuclio_sdk._worker.start;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env={"PYTHONPATH": str(SDK)}, capture_output=True, text=True, check=True
    )
    heavy = {
        "asyncio",
        "logging",
        "traceback",
        "datetime",
        "http.client",
        "socket",
        "msgpack",
        "inspect",
        "typing",
        "contextlib",
    }
    assert not heavy.intersection(done.stdout.split())


def test_context() -> None:
    context = Context(Logger("info"), Platform("local"), "0", TriggerInfo("mqtt", "m"))
    context.user_data.counter = 1
    assert context.user_data.counter == 1
    assert (context.worker_id, context.trigger.kind, context.trigger.name, context.trigger_name) == (  # type: ignore[union-attr]
        "0",
        "mqtt",
        "m",
        "m",
    )
    assert context.Response is nuclio_sdk.Response and not hasattr(context, "trigger_kind")
    assert Context().platform.kind == "local"


def test_an_event_of_the_users_own() -> None:
    event = Event(body=b"bytes-body", content_type="a/b", trigger=TriggerInfo(kind="http", name="web"), method="GET")
    fields = json.loads(event.to_json())
    assert fields["body"] == "Ynl0ZXMtYm9keQ==" and fields["trigger"] == {"kind": "http", "name": "web"}
    assert fields["offset"] == 0 and fields["last_in_batch"] is False and event.path == "/"
    assert json.loads(Event(body="text").to_json())["body"] == "text"
    assert bytes(event.body_view) == b"bytes-body"


MESSAGE: dict[str, Any] = {
    "body": '{"a": 1}',
    "content_type": "application/json",
    "trigger": {"kind": "http", "name": "t"},
    "fields": {},
    "headers": {"A": "b"},
    "id": "1",
    "method": "POST",
    "path": "/p",
    "size": 8,
    "timestamp": 1,
    "url": "",
    "shard_id": 2,
    "num_shards": 3,
    "type": "",
    "type_version": "",
    "version": "",
    "offset": 4,
    "topic": "t",
}


def test_deserialize() -> None:
    for event in (
        Event.from_json(json.dumps(MESSAGE)),
        Event.deserialize(json.dumps(MESSAGE), kind=EventDeserializerKinds.json),
    ):
        assert event.body == {"a": 1} and event.headers == {"A": "b"} and event.trigger.name == "t"
        assert (event.shard_id, event.num_shards, event.offset, event.topic) == (2, 3, 4, "t")
        assert event.timestamp.isoformat() == "1970-01-01T00:00:01"
    assert len(Event.from_json(json.dumps([MESSAGE, MESSAGE]))) == 2


def test_deserialize_msgpack() -> None:
    msgpack = need_module("msgpack")
    packed = msgpack.packb(MESSAGE)
    assert Event.from_msgpack(packed).method == "POST"
    raw = Event.deserialize(packed)
    assert raw.method == b"POST" and raw.headers == {b"A": b"b"} and raw.body == {"a": 1}


def test_qualified_offset() -> None:
    event = Event(topic="", path="orders", shard_id=1, offset=7)
    place = QualifiedOffset.from_event(event)
    assert (place.topic, place.partition, place.offset) == ("orders", 1, 7)
    message = {"kind": "streamMessageAck", "attributes": {"topic": "orders", "partition": 1, "offset": 7}}
    assert place.compile_explicit_ack_message() == event.compile_explicit_ack_message() == message


class Broken:
    def __log__(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, "ä"]}, '{"a": [1, "\\u00e4"]}'),
        ([math.nan, math.inf, -math.inf, 1.5], '["NaN", "Infinity", "-Infinity", 1.5]'),
        ({1: None, "b": False}, '{"1": null, "b": false}'),
        ({"o": print}, '{"o": "<built-in function print>"}'),
        ({"o": Broken(), "f": math.nan}, '{"o": "Unable to serialize object: ", "f": "NaN"}'),
    ],
)
def test_encoder(value: Any, text: str) -> None:
    assert nuclio_sdk.json_encoder.Encoder().encode(value) == text
    assert json.dumps(value, cls=nuclio_sdk.json_encoder.Encoder) == text


def test_encoder_options_and_circles() -> None:
    encoder = nuclio_sdk.json_encoder.Encoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert encoder.encode({"b": "ä", "a": 1}) == '{"a":1,"b":"ä"}'
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        encoder.encode(circle)


async def test_explicit_ack() -> None:
    sent = []

    async def control(message: dict[str, Any]) -> None:
        sent.append(message)

    await Platform("local", on_control_callback=control).explicit_ack(QualifiedOffset("t", 1, 2))
    assert sent[0]["attributes"] == {"topic": "t", "partition": 1, "offset": 2}
    with pytest.raises(RuntimeError, match="no explicit acknowledgement"):
        await Platform("local").explicit_ack(QualifiedOffset("t", 1, 2))
