"""Events out of nuclio's own wire formats, for functions and tests that call `Event.deserialize`."""

from __future__ import annotations

import enum
import json
import sys
from datetime import datetime, timedelta
from typing import Any

from .event import Event, TriggerInfo

_OPTIONAL = ("fields", "headers", "shard_id", "num_shards", "type_version", "version", "offset", "topic", "url", "size")


class EventDeserializerKinds(enum.Enum):
    """The formats: `msgpack_raw` keeps every text as bytes."""

    msgpack = "msgpack"
    msgpack_raw = "msgpack_raw"
    json = "json"

    def deserialize(self, data: Any) -> Event | list[Event]:
        """One event, or a list where the message is a list. Raises ImportError when msgpack is not installed."""
        message = json.loads(data) if self is EventDeserializerKinds.json else _unpack(data, self)
        if isinstance(message, list):
            return [_event(item) for item in message]
        return _event(message)


def _unpack(data: Any, kind: EventDeserializerKinds) -> Any:
    import msgpack  # type: ignore[import-untyped]  # the function's own dependency

    raw = kind is EventDeserializerKinds.msgpack_raw
    return msgpack.unpackb(data, raw=raw) if isinstance(data, bytes | bytearray | memoryview) else data


def _event(message: dict[Any, Any]) -> Event:
    by_name = {name.decode() if isinstance(name, bytes) else name: value for name, value in message.items()}
    source = {
        name.decode() if isinstance(name, bytes) else name: value for name, value in by_name.get("trigger", {}).items()
    }
    return Event(
        body=_body(by_name["body"], by_name.get("content_type")),
        content_type=by_name.get("content_type"),
        trigger=TriggerInfo(source.get("kind", ""), source.get("name", "")),
        _id=by_name.get("id"),
        method=by_name.get("method"),
        path=by_name.get("path"),
        timestamp=datetime(1970, 1, 1) + timedelta(seconds=by_name.get("timestamp", 0)),
        _type=by_name.get("type"),
        **{name: by_name.get(name) for name in _OPTIONAL},
    )


def _body(body: Any, content_type: Any) -> Any:
    if content_type in ("application/json", b"application/json") and isinstance(body, str | bytes):
        try:
            return json.loads(body)
        except ValueError as error:
            print(f"event body is not JSON: {error}", file=sys.stderr)
    return body
