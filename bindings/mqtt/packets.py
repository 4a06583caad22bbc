"""MQTT's wire form of what a binding sends and is answered: PUBLISH out, its acknowledgements in.

CONNECT, PING and DISCONNECT stay with paho, as in the mqtt trigger. Everything here passes once per message.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.model.outlet import Message
from agent.triggers.mqtt.packets import Malformed, read_varint

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x60, 0x70

RETRY_LATER = {0x80: "an error without a name", 0x83: "not now", 0x97: "quota exceeded"}
"""Refusals that say nothing about the message itself (MQTT 5)."""


class Answer(NamedTuple):
    """PUBACK, PUBREC or PUBCOMP. `reason` 0 in MQTT 3.1.1; from 0x80 on it is a refusal."""

    kind: int
    mid: int
    reason: int


def read_answer(packet: bytes) -> Answer | None:
    """None when the packet is of another kind. Raises Malformed."""
    kind = packet[0] & 0xF0
    if kind not in (PUBACK, PUBREC, PUBCOMP):
        return None
    size, start = read_varint(packet, 1, len(packet))
    if size < 2 or start < 0 or start + size > len(packet):
        raise Malformed("an acknowledgement without a packet id")
    return Answer(kind, packet[start] << 8 | packet[start + 1], packet[start + 2] if size > 2 else 0)


def pubrel(mid: int) -> bytes:
    """The same in MQTT 3.1.1 and 5."""
    return bytes((PUBREL | 2, 2, mid >> 8, mid & 255))


def publish(message: Message, mid: int, qos: int, marks: list[tuple[str, str]], *, again: bool, version: int) -> bytes:
    """One PUBLISH. `marks` are user properties beside the message's headers, in MQTT 5."""
    head = 0x30 | (8 if again and qos else 0) | qos << 1 | message.retain
    parts = [_text(message.topic)]
    if qos:
        parts.append(mid.to_bytes(2, "big"))
    if version == 5:
        properties = _properties(message, marks)
        parts += [_varint(len(properties)), properties]
    parts.append(message.body)
    return b"".join((bytes((head,)), _varint(sum(map(len, parts))), *parts))


def _properties(message: Message, marks: list[tuple[str, str]]) -> bytes:
    parts = []
    for name, value in (*message.headers, *marks):
        if name.lower() == "content-type":
            parts.append(b"\x03" + _text(value))
        else:
            parts.append(b"\x26" + _text(name) + _text(value))
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return len(data).to_bytes(2, "big") + data


def _varint(value: int) -> bytes:
    data = bytearray()
    while True:
        value, byte = value >> 7, value & 127
        data.append(byte | (128 if value else 0))
        if not value:
            return bytes(data)
