"""What of an event is its order key, or its id: spec texts such as `header:NAME` become functions.

Flow: spec -> [pick] -> line (order) and ids (repeated events). Nothing is looked at twice, nothing is decoded that
nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from urllib.parse import parse_qsl

import msgspec

from agent.model.event import Event, Text

Pick = Callable[[Event], Text]
"""Empty: this event has none."""

Members = dict[str, msgspec.Raw]
MARK_BYTES = 16


def picker(text: str) -> Pick | None:
    """The function that `text` names; None for `none` and ""."""
    kind, _, name = text.partition(":")
    match kind:
        case "none" | "":
            return None
        case "topic":
            return lambda event: event.topic
        case "path":
            return lambda event: event.path
        case "message-id":
            return lambda event: event.id
        case "header":
            wanted = name.lower()
            return lambda event: _header(event, wanted)
        case "field":
            return lambda event: _field(event, name)
        case "body":
            return lambda event: _member(event, name)
    raise ValueError(f"no such part of an event: {text!r}")


def id_picker(given: str, default: str) -> Pick:
    """The id of an event by `idFrom`; without it, what the kind has, else id and source of a CloudEvent."""
    pick = picker(given or default)
    if pick is None:
        return _cloud_event
    if given:
        return pick
    return lambda event: pick(event) or _cloud_event(event)


def mark_of(trigger: str, id: Text) -> bytes:
    """16 bytes that stand for an id of a trigger."""
    raw = id if isinstance(id, bytes) else id.encode("utf-8", "surrogateescape")
    return blake2b(raw, digest_size=MARK_BYTES, person=b"headrace", key=trigger.encode()[:64]).digest()


def _cloud_event(event: Event) -> Text:
    """Id and source name a CloudEvent; the id alone does not."""
    if not (event.id and event.source and event.type and event.version):
        return b""
    return _bytes(event.source) + b"\0" + _bytes(event.id)


def _header(event: Event, wanted: str) -> Text:
    for name, value in event.headers:
        text = name if isinstance(name, str) else name.decode("latin-1")
        if text.lower() == wanted:
            return value
    return b""


def _field(event: Event, wanted: str) -> Text:
    fields = event.fields
    if isinstance(fields, bytes):
        pairs = parse_qsl(fields.decode("utf-8", "replace"), keep_blank_values=True) if fields else ()
        return next((value for name, value in pairs if name == wanted), "")
    return next((value for name, value in fields if _bytes(name) == wanted.encode()), b"")


def _member(event: Event, wanted: str) -> Text:
    """A text as it is, anything else as its JSON; empty when the body is no JSON object or has no such member."""
    try:
        raw = msgspec.json.decode(event.body, type=Members).get(wanted)
        if raw is None:
            return b""
        value = bytes(raw)
        return msgspec.json.decode(value, type=str) if value[:1] == b'"' else value
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
