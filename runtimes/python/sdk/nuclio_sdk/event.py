"""The event as a handler sees it, and as functions make it to call one another.

Promise: every attribute is a plain, assignable one. In a worker the attributes are decoded at first access
(`nuclio_sdk._worker.channel_event`); here they are simply what the maker of the event gave.
"""

from __future__ import annotations

from .qualified_offset import QualifiedOffset

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    if name == "EventDeserializerKinds":
        from .event_deserializers import EventDeserializerKinds

        return EventDeserializerKinds
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TriggerInfo:
    """Where an event came from."""

    def __init__(self, kind: Any = "", name: Any = "") -> None:
        self.kind = kind
        self.name = name


class Event:
    """One message for a function."""

    body: Any
    content_type: Any
    trigger: TriggerInfo
    fields: dict[Any, Any]
    headers: dict[Any, Any]
    id: Any
    method: Any
    path: Any
    size: Any
    timestamp: Any  # naive UTC datetime in events that a worker gets
    url: Any
    shard_id: Any
    num_shards: Any
    type: Any
    type_version: Any
    version: Any
    last_in_batch: bool
    offset: int
    topic: Any

    def __init__(
        self,
        body: Any = None,
        content_type: Any = None,
        trigger: TriggerInfo | None = None,
        fields: dict[Any, Any] | None = None,
        headers: dict[Any, Any] | None = None,
        _id: Any = None,
        method: Any = None,
        path: Any = None,
        size: Any = None,
        timestamp: Any = None,
        url: Any = None,
        shard_id: Any = None,
        num_shards: Any = None,
        _type: Any = None,
        type_version: Any = None,
        version: Any = None,
        last_in_batch: bool | None = None,
        offset: int | None = None,
        topic: Any = None,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.trigger = trigger or TriggerInfo()
        self.fields = fields or {}
        self.headers = headers or {}
        self.id = _id
        self.method = method
        self.path = path or "/"
        self.size = size
        self.timestamp = timestamp or 0
        self.url = url
        self.shard_id = shard_id
        self.num_shards = num_shards
        self.type = _type
        self.type_version = type_version
        self.version = version
        self.last_in_batch = last_in_batch or False
        self.offset = offset or 0
        self.topic = topic

    @property
    def body_view(self) -> memoryview:
        """The body's bytes without a copy where that is possible. Do not keep it beyond the handler's return."""
        return memoryview(self.body)

    def get_header(self, header_key: Any) -> Any:
        """The value of a header, whatever the case of its name; None when it is absent."""
        wanted = header_key.lower()
        for name, value in self.headers.items():
            if name.lower() == wanted:
                return value
        return None

    def to_json(self) -> str:
        """The event as JSON; a body of bytes as base64."""
        import json

        fields = dict(vars(self))
        fields["trigger"] = {"kind": self.trigger.kind, "name": self.trigger.name}
        if not isinstance(self.timestamp, int | float):
            fields["timestamp"] = str(self.timestamp)
        if isinstance(self.body, bytes):
            import base64

            fields["body"] = base64.b64encode(self.body).decode("ascii")
        return json.dumps(fields, default=str)

    @classmethod
    def deserialize(cls, data: Any, kind: Any = None) -> Any:
        """The event (or list of events) in a message of nuclio's; `kind` is one of EventDeserializerKinds."""
        from .event_deserializers import EventDeserializerKinds

        return (kind or EventDeserializerKinds.msgpack_raw).deserialize(data)

    @staticmethod
    def from_json(data: Any) -> Any:
        """Deprecated: use `deserialize(data, EventDeserializerKinds.json)`."""
        from .event_deserializers import EventDeserializerKinds

        return EventDeserializerKinds.json.deserialize(data)

    @staticmethod
    def from_msgpack(data: Any) -> Any:
        """Deprecated: use `deserialize(data, EventDeserializerKinds.msgpack)`."""
        from .event_deserializers import EventDeserializerKinds

        return EventDeserializerKinds.msgpack.deserialize(data)

    def compile_explicit_ack_message(self) -> dict[str, Any]:
        """The acknowledgement of this event as the message a processor understands."""
        return QualifiedOffset.from_event(self).compile_explicit_ack_message()

    def __repr__(self) -> str:
        return self.to_json()
