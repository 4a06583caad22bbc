"""CloudEvents over HTTP: 1.0 and nuclio's 0.1, structured (one JSON object) and binary (`ce-` headers).

Flow: connection -> [this] -> Event. Promise: an envelope that breaks its own specification is refused with a sentence
that says which attribute is wrong; the data arrives byte for byte as it was sent.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from agent.model.event import LATEST_NS, NOW, Event
from agent.triggers.http.request import Known, Refusal

PREFIX = b"application/cloudevents"
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_ATTRIBUTES = frozenset(["specversion", "id", "source", "type", "time", "datacontenttype", "data", "data_base64"])
Members = dict[str, msgspec.Raw]


def is_binary(known: Known) -> bool:
    """This request carries a CloudEvent in its headers (a structured one says so in its content type)."""
    return b"ce-specversion" in known or b"ce-cloudeventsversion" in known


def unwrap(event: Event, known: Known) -> None:
    """Fill `event` (whose body has arrived) from its envelope. Raises Refusal 400, or 415 for an unknown format."""
    content_type = known.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type.startswith(PREFIX):
        if content_type not in (PREFIX, PREFIX + b"+json"):
            raise Refusal(415, f"{content_type.decode('latin-1')} is not understood; send application/cloudevents+json")
        _unwrap_structured(event)
    elif b"ce-specversion" in known:
        _unwrap_binary(event, known)
    else:
        _unwrap_binary_0_1(event, known)


def _unwrap_structured(event: Event) -> None:
    try:
        members = msgspec.json.decode(bytes(event.body), type=Members)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the CloudEvent is not a JSON object: {error}") from error
    if "specversion" in members:
        _structured_1_0(event, members)
    elif "cloudEventsVersion" in members:
        _structured_0_1(event, members)
    else:
        raise Refusal(400, "the CloudEvent has no `specversion`")


def _structured_1_0(event: Event, members: Members) -> None:
    _check_specversion(_text(members, "specversion"))
    _identify(event, _text(members, "id"), _text(members, "source"), _text(members, "type"))
    event.version = _text(members, "specversion")
    event.timestamp_ns = _nanoseconds(_text(members, "time", required=False), "time")
    extensions = [(f"ce-{name}", _plain(raw)) for name, raw in members.items() if name not in _ATTRIBUTES]
    event.headers = [*event.headers, *extensions]
    event.content_type = _text(members, "datacontenttype", required=False)
    if "data_base64" in members:
        if "data" in members:
            raise Refusal(400, "the CloudEvent has both `data` and `data_base64`")
        event.body = _base64(_text(members, "data_base64"))
    else:
        _set_data(event, members.get("data"), json_by_default=True)


def _structured_0_1(event: Event, members: Members) -> None:
    """nuclio's form: every attribute may be missing, extensions take the place of the request's headers."""
    event.id = _text(members, "eventID", required=False)
    event.source = _text(members, "source", required=False)
    event.type = _text(members, "eventType", required=False)
    event.type_version = _text(members, "eventTypeVersion", required=False)
    event.version = _text(members, "cloudEventsVersion")
    event.timestamp_ns = _nanoseconds(_text(members, "eventTime", required=False), "eventTime")
    event.content_type = _text(members, "contentType", required=False)
    event.headers = [(name, _plain(raw)) for name, raw in _object(members, "extensions").items()]
    _set_data(event, members.get("data"), json_by_default=False)


def _unwrap_binary(event: Event, known: Known) -> None:
    event.version = _header(known, "ce-specversion")
    _check_specversion(event.version)
    _identify(event, _header(known, "ce-id"), _header(known, "ce-source"), _header(known, "ce-type"))
    event.timestamp_ns = _nanoseconds(_header(known, "ce-time"), "ce-time")


def _unwrap_binary_0_1(event: Event, known: Known) -> None:
    event.version = _header(known, "ce-cloudeventsversion")
    event.id = _header(known, "ce-eventid")
    event.source = _header(known, "ce-source")
    event.type = _header(known, "ce-eventtype")
    event.type_version = _header(known, "ce-eventtypeversion")
    event.timestamp_ns = _nanoseconds(_header(known, "ce-eventtime"), "ce-eventtime")


def _set_data(event: Event, raw: msgspec.Raw | None, *, json_by_default: bool) -> None:
    """JSON stays JSON and is decoded for the function, unless it is a text whose content type is not JSON."""
    if raw is None:
        event.body = b""
        return
    value = bytes(raw)
    declared = str(event.content_type).partition(";")[0].strip().lower()
    is_json = declared == "application/json" or declared.endswith("+json") or (not declared and json_by_default)
    if value[:1] == b'"' and not is_json:
        event.body = str(msgspec.json.decode(value)).encode()
        return
    event.body, event.json_body = value, True
    if not declared:
        event.content_type = "application/json"


def _identify(event: Event, id: str, source: str, type: str) -> None:
    for name, value in (("id", id), ("source", source), ("type", type)):
        if not value:
            raise Refusal(400, f"the CloudEvent has no `{name}`")
    event.id, event.source, event.type = id, source, type


def _check_specversion(version: str) -> None:
    if version != "1.0":
        raise Refusal(400, f"CloudEvents {version!r} is not understood; send specversion 1.0")


def _text(members: Members, name: str, *, required: bool = True) -> str:
    """A string member. One that is missing (or null and not required) is ""; any other type is refused."""
    raw = members.get(name)
    if raw is None or (not required and bytes(raw) == b"null"):
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"`{name}` of the CloudEvent is not a string") from error


def _object(members: Members, name: str) -> Members:
    raw = members.get(name)
    if raw is None or bytes(raw) == b"null":
        return {}
    try:
        return msgspec.json.decode(raw, type=Members)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"`{name}` of the CloudEvent is not an object") from error


def _plain(raw: msgspec.Raw) -> str:
    """An extension's value as a header value: a string as it is, anything else as its JSON."""
    try:
        value: Any = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise Refusal(400, "an extension of the CloudEvent is not valid JSON") from error
    return value if isinstance(value, str) else bytes(raw).decode()


def _header(known: Known, name: str) -> str:
    """A `ce-` header, percent-decoded; "" when it is missing."""
    try:
        return unquote_to_bytes(known.get(name.encode(), b"")).decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, f"header {name} is not percent-encoded UTF-8") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "`data_base64` of the CloudEvent is not base64") from error


def _nanoseconds(text: str, name: str) -> int:
    """An RFC 3339 time as nanoseconds since 1970; NOW for ""."""
    if not text:
        return NOW
    match = _TIME.fullmatch(text)
    if match is None:
        raise Refusal(400, f"`{name}` of the CloudEvent is not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    in_range = 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60
    if not in_range or year < 1970 or day > calendar.monthrange(year, month)[1]:
        raise Refusal(400, f"`{name}` of the CloudEvent is no time on the calendar since 1970")
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if match[9]:
        offset = int(match[10]) * 3600 + int(match[11]) * 60
        seconds -= offset if match[9] == "+" else -offset
    time_ns = seconds * 1_000_000_000 + int((match[7] or "")[:9].ljust(9, "0"))
    if not 0 <= time_ns <= LATEST_NS:
        raise Refusal(400, f"`{name}` of the CloudEvent is not a time since 1970 and before 2262-04-11T23:47:17Z")
    return time_ns
