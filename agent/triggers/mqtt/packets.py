"""MQTT's wire form of what passes once per event: PUBLISH in, and its acknowledgements.

Why not leave these to paho: it reads every packet in three `recv` calls and half a dozen locks, answers QoS 2 with a
PUBREC before anybody has handled the message, and decodes MQTT 5 properties one generic step at a time. Everything
that does not pass once per event (CONNECT, SUBSCRIBE, PING, our own publishes) stays with paho, see `client.py`.

Every length is checked against the packet before it is used; what does not fit raises Malformed.
"""

from __future__ import annotations

from struct import Struct

PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, PINGRESP = 0x30, 0x40, 0x50, 0x60, 0x70, 0xD0
PINGRESP_PACKET = b"\xd0\x00"

acknowledgement = Struct(">BBH").pack
"""`acknowledgement(kind, 2, mid)`: the same four bytes in MQTT 3.1.1 and, for success, in 5."""

_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION, _USER = 0x03, 0x08, 0x09, 0x26
_FIXED = {0x01: 1, 0x02: 4, 0x23: 2}  # payload format, message expiry, topic alias: skipped
_SUBSCRIPTION_ID = 0x0B


class Malformed(Exception):
    """The broker sent what MQTT does not allow; the connection is of no more use."""


class Properties:
    """What a function can use of a PUBLISH's MQTT 5 properties."""

    __slots__ = ("content_type", "correlation", "response_topic", "user")

    def __init__(self) -> None:
        self.content_type = b""
        self.response_topic = b""
        self.correlation: bytes | None = None
        self.user: list[tuple[bytes, bytes]] = []


class Message:
    """One PUBLISH, and how far it has come (`state`, kept by the inbox)."""

    __slots__ = ("body", "dup", "mid", "properties", "qos", "retain", "state", "topic")

    def __init__(self, head: int, mid: int, topic: bytes, body: bytes, properties: Properties | None) -> None:
        self.qos = head >> 1 & 3
        self.dup = head & 8 != 0
        self.retain = head & 1 != 0
        self.mid = mid
        self.topic = topic
        self.body = body
        self.properties = properties
        self.state = 0


def read_varint(data: bytes, pos: int, stop: int) -> tuple[int, int]:
    """A variable byte integer at `pos` and the position behind it; (0, -1) when it does not end before `stop`."""
    value = shift = 0
    while pos < stop:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, pos
        shift += 7
        if shift > 21:
            raise Malformed("a length of more than four bytes")
    return 0, -1


def read_publish(head: int, data: bytes, start: int, stop: int, version: int) -> Message:
    """The PUBLISH whose variable header starts at `start` and whose payload ends at `stop`."""
    if stop - start < 2:
        raise Malformed("PUBLISH without a topic")
    pos = start + 2 + (data[start] << 8 | data[start + 1])
    topic = data[start + 2 : pos]
    mid = 0
    if head & 6:
        mid = data[pos] << 8 | data[pos + 1] if pos + 2 <= stop else 0
        pos += 2
        if mid == 0 or head & 6 == 6:
            raise Malformed("PUBLISH with a wrong QoS or packet id")
    properties = None
    if version == 5:
        size, pos = read_varint(data, pos, stop)
        if pos < 0 or pos + size > stop:
            raise Malformed("PUBLISH properties that do not fit")
        if size:
            properties = read_properties(data, pos, pos + size)
            pos += size
    if pos > stop or not topic:
        raise Malformed("PUBLISH whose parts do not fit")
    return Message(head, mid, topic, data[pos:stop], properties)


def read_properties(data: bytes, pos: int, stop: int) -> Properties:
    """The properties between `pos` and `stop`."""
    found = Properties()
    while pos < stop:
        name = data[pos]
        pos += 1
        if name in _FIXED:
            pos += _FIXED[name]
        elif name == _SUBSCRIPTION_ID:
            _, pos = read_varint(data, pos, stop)
            if pos < 0:
                raise Malformed("a subscription id that does not end")
        elif name == _USER:
            key, pos = _read_bytes(data, pos, stop)
            value, pos = _read_bytes(data, pos, stop)
            found.user.append((key, value))
        elif name in (_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION):
            value, pos = _read_bytes(data, pos, stop)
            _keep(found, name, value)
        else:
            raise Malformed(f"PUBLISH with property {name}")
    if pos > stop:
        raise Malformed("a property that does not fit")
    return found


def _keep(found: Properties, name: int, value: bytes) -> None:
    if name == _CONTENT_TYPE:
        found.content_type = value
    elif name == _RESPONSE_TOPIC:
        found.response_topic = value
    else:
        found.correlation = value


def _read_bytes(data: bytes, pos: int, stop: int) -> tuple[bytes, int]:
    """Two bytes of length and that many bytes."""
    if pos + 2 > stop:
        raise Malformed("a property that does not fit")
    end = pos + 2 + (data[pos] << 8 | data[pos + 1])
    if end > stop:
        raise Malformed("a property that does not fit")
    return data[pos + 2 : end], end
