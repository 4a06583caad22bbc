"""Events and replies as bytes on the disk, with a checksum each: a record that lies is known as such.

Flow: durable sink -> [codec] -> store; after a restart the other way. A record is four bytes of CRC-32, one byte of
layout, then msgpack: the fields of an event in order, without those at the end that have their default.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from agent.model.event import Event, Outcome, Result

LAYOUT = 1
_FIELDS = (
    *("body", "content_type", "headers", "fields", "method", "path", "url", "topic", "id", "timestamp_ns"),
    *("type", "type_version", "version", "shard_id", "num_shards", "offset", "source", "json_body", "log_level"),
)
_DEFAULTS = tuple(getattr(Event(), name) for name in _FIELDS)
_encoder = msgspec.msgpack.Encoder()


class Damaged(Exception):
    """These bytes are not what was written."""


def encode_event(event: Event) -> bytes:
    """Every field of the event."""
    values = [getattr(event, name) for name in _FIELDS]
    while values and values[-1] == _DEFAULTS[len(values) - 1]:
        values.pop()
    if values:
        values[0] = bytes(values[0])
    return sealed(values)


def decode_event(record: bytes) -> Event:
    """Raises Damaged."""
    values = opened(record)
    if not isinstance(values, list) or len(values) > len(_FIELDS):
        raise Damaged("not an event")
    event = Event(**dict(zip(_FIELDS, values, strict=False)))
    event.headers = [(name, value) for name, value in event.headers]
    if not isinstance(event.fields, bytes):
        event.fields = [(name, value) for name, value in event.fields]
    return event


def late_event(event: Event, attempts: int) -> Event:
    """Marked as one that others may have overtaken."""
    event.headers = [*event.headers, ("X-Headrace-Late", "true")]
    if attempts:
        event.headers.append(("X-Headrace-Attempts", str(attempts)))
    return event


def encode_reply(outcome: Outcome) -> bytes:
    """What a repeated request is answered with."""
    return sealed([outcome.status, outcome.content_type, outcome.headers, outcome.body])


def decode_reply(record: bytes) -> Outcome:
    """Raises Damaged."""
    try:
        status, content_type, headers, body = opened(record)
        return Outcome(Result.REPLIED, status, content_type, [(name, value) for name, value in headers], body)
    except (TypeError, ValueError) as error:
        raise Damaged("not a reply") from error


def sealed(values: list[Any]) -> bytes:
    """Any plain values as one record."""
    body = bytes((LAYOUT,)) + _encoder.encode(values)
    return zlib.crc32(body).to_bytes(4, "little") + body


def opened(record: bytes) -> Any:
    """Raises Damaged."""
    if len(record) < 5 or zlib.crc32(record[4:]) != int.from_bytes(record[:4], "little") or record[4] != LAYOUT:
        raise Damaged("checksum does not fit")
    try:
        return msgspec.msgpack.decode(record[5:])
    except msgspec.DecodeError as error:
        raise Damaged(str(error)) from error
