"""Events out of the channel, decoded attribute by attribute when the handler first asks.

Why: most handlers read two or three of twenty attributes; decoding all of them would cost more than the channel.
Flow: record taken from the channel -> ChannelEvent -> handler. The bytes are laid out as shmem/PROTOCOL.md says.
Promise: an event is a `nuclio_sdk.Event` in every respect: its attributes are assignable, `vars()` shows all of them,
it can be kept after its reply, copied and pickled. Text that is not UTF-8 raises UnicodeDecodeError where it is read.
"""

from __future__ import annotations

import struct
import sys

from ..event import Event, TriggerInfo
from .query import pairs_of_query

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shmem._channel import WorkerChannel

Record = tuple[int, int, int, bytes]
"""What `WorkerChannel.take` gives: kind, flags, id, head."""

_FIXED = struct.Struct("<qqiIIII13I")  # timestamp offset shard_id num_shards body headers fields, ends of 13 parts
_PAIR = struct.Struct("<II")
_TEXT = 88  # where the text begins in a head
_RAW_QUERY = 0xFFFFFFFF
_ENDS = 7  # index of the first end in what _FIXED unpacks
_CONTENT_TYPE, _METHOD, _PATH, _URL, _TOPIC, _ID, _TYPE, _TYPE_VERSION, _VERSION, _KIND, _NAME, _HEADERS, _FIELDS = (
    range(13)
)
_JSON_BODY = 8
_NAMES_KEPT = 1024  # header names whose canonical form is remembered

_dict_of: Callable[[Any], dict[str, Any]] = Event.__dict__["__dict__"].__get__


class ChannelEvent(Event):
    """One event of one channel. `event_class` makes the class of a worker, which knows what all its events share."""

    __slots__ = ("_fixed", "_raw", "_record")

    _channel: WorkerChannel
    _decode: bool
    _canonical: Callable[[bytes], bytes] | None
    _id_prefix: str

    def __init__(self, record: Record) -> None:
        self._record = record
        self._raw: bytes | None = None  # the body once it has been copied out of the channel
        self._fixed: Any = None

    def __getattr__(self, name: str) -> Any:
        decode = _DECODERS.get(name)
        if decode is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = decode(self)
        setattr(self, name, value)
        return value

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # what vars() and to_json() read
        for name in _DECODERS:
            getattr(self, name)
        return _dict_of(self)

    @property
    def body_view(self) -> memoryview:
        """The body's bytes in shared memory, without a copy. Drop it before the handler returns."""
        return self._channel.view() if self._raw is None else memoryview(self._raw)

    def detach(self) -> None:
        """Copy out of the channel what is still there: the record is about to be given back, the event lives on."""
        if self._raw is None:
            self._raw = b"" if "body" in _dict_of(self) else self._channel.body()

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_event, (self.__dict__,)


def event_class(channel: WorkerChannel, *, decode: bool = True, canonical: bool = True) -> type[ChannelEvent]:
    """The class of the events that come out of `channel`.

    `decode`: text as str, else everything stays bytes. `canonical`: header names as HTTP servers write them
    (`x-foo-bar` -> `X-Foo-Bar`).
    """
    salt = f"{channel.salt:016x}"
    shared = {
        "__slots__": (),
        "_channel": channel,
        "_decode": decode,
        "_canonical": staticmethod(_canonical_names()) if canonical else None,
        # a version 4 UUID, in which the record's number stands for most of the random bits
        "_id_prefix": f"{salt[:8]}-{salt[8:12]}-4{salt[12:15]}-",
    }
    return type("Event", (ChannelEvent,), shared)


def _plain_event(attributes: dict[str, Any]) -> Event:
    event = Event()
    vars(event).update(attributes)
    return event


def _canonical_names() -> Callable[[bytes], bytes]:
    known: dict[bytes, bytes] = {}

    def canonical(name: bytes) -> bytes:
        found = known.get(name)
        if found is None:
            found = b"-".join([part.capitalize() for part in name.split(b"-")])
            if len(known) < _NAMES_KEPT:  # a client may invent names without end
                known[name] = found
        return found

    return canonical


def _fixed(event: ChannelEvent) -> Any:
    fixed = event._fixed
    if fixed is None:
        fixed = event._fixed = _FIXED.unpack_from(event._record[3])
    return fixed


def _text(event: ChannelEvent, part: int) -> Any:
    fixed = event._fixed or _fixed(event)
    begin = fixed[_ENDS + part - 1] if part else 0
    raw = event._record[3][_TEXT + begin : _TEXT + fixed[_ENDS + part]]
    return raw.decode() if event._decode else raw


def _pairs(event: ChannelEvent, part: int, count: int) -> list[tuple[bytes, bytes]]:
    head = event._record[3]
    at = _TEXT + _fixed(event)[_ENDS + part - 1]
    pairs = []
    for _ in range(count):
        name_size, value_size = _PAIR.unpack_from(head, at)
        middle = at + 8 + name_size
        pairs.append((head[at + 8 : middle], head[middle : middle + value_size]))
        at = middle + value_size
    return pairs


def _as_dict(event: ChannelEvent, pairs: list[tuple[bytes, bytes]]) -> dict[Any, Any]:
    """The last of several values wins."""
    if event._decode:
        return {name.decode(): value.decode() for name, value in pairs}
    return dict(pairs)


def _headers(event: ChannelEvent) -> dict[Any, Any]:
    pairs = _pairs(event, _HEADERS, _fixed(event)[5])
    canonical = event._canonical
    if canonical is not None:
        pairs = [(canonical(name), value) for name, value in pairs]
    return _as_dict(event, pairs)


def _fields(event: ChannelEvent) -> dict[Any, Any]:
    fixed = _fixed(event)
    if fixed[6] != _RAW_QUERY:
        return _as_dict(event, _pairs(event, _FIELDS, fixed[6]))
    query = event._record[3][_TEXT + fixed[_ENDS + _FIELDS - 1] : _TEXT + fixed[_ENDS + _FIELDS]]
    return _as_dict(event, pairs_of_query(query))


def _body(event: ChannelEvent) -> Any:
    raw = event._raw
    if raw is None:
        raw = event._channel.body()
    fixed = _fixed(event)
    if not event._record[1] & _JSON_BODY and event._record[3][_TEXT : _TEXT + fixed[_ENDS]] != b"application/json":
        return raw
    import json

    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        print(f"event body is not JSON: {error}", file=sys.stderr)
        return raw


def _id(event: ChannelEvent) -> Any:
    given = _text(event, _ID)
    if given:
        return given
    number = event._record[2]
    made = f"{event._id_prefix}{0x8000 | number >> 48 & 0x3FFF:04x}-{number & 0xFFFFFFFFFFFF:012x}"
    return made if event._decode else made.encode()


def _timestamp(event: ChannelEvent) -> Any:
    from datetime import datetime, timedelta

    return datetime(1970, 1, 1) + timedelta(seconds=_fixed(event)[0] // 1_000_000_000)


def _path(event: ChannelEvent) -> Any:
    return _text(event, _PATH) or ("/" if event._decode else b"/")


_DECODERS: dict[str, Callable[[ChannelEvent], Any]] = {
    "body": _body,
    "content_type": lambda event: _text(event, _CONTENT_TYPE),
    "trigger": lambda event: TriggerInfo(_text(event, _KIND), _text(event, _NAME)),
    "fields": _fields,
    "headers": _headers,
    "id": _id,
    "method": lambda event: _text(event, _METHOD),
    "path": _path,
    "size": lambda event: _fixed(event)[4],
    "timestamp": _timestamp,
    "url": lambda event: _text(event, _URL),
    "shard_id": lambda event: _fixed(event)[2],
    "num_shards": lambda event: _fixed(event)[3],
    "type": lambda event: _text(event, _TYPE),
    "type_version": lambda event: _text(event, _TYPE_VERSION),
    "version": lambda event: _text(event, _VERSION),
    "last_in_batch": lambda event: False,
    "offset": lambda event: _fixed(event)[1],
    "topic": lambda event: _text(event, _TOPIC),
}
