"""PUBLISH as paho writes it is read as it was meant; anything else is Malformed, never another exception."""

from __future__ import annotations

import random

import pytest
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from agent.triggers.mqtt.client import properties_of
from agent.triggers.mqtt.packets import Malformed, Message, read_publish, read_varint


def packed(version: int, topic: str, body: bytes, qos: int, **properties: object) -> bytes:
    """A PUBLISH made by paho."""
    client = PahoClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(version))
    sent: list[bytes] = []

    class Catcher:
        def send(self, data: bytes) -> int:
            sent.append(bytes(data))
            return len(data)

        def close(self) -> None: ...

    client._sock = Catcher()  # type: ignore[assignment]
    given = properties_of(PacketTypes.PUBLISH, **properties) if properties else None
    client.publish(topic, body, qos, properties=given)
    return sent[0]


def read(packet: bytes, version: int) -> Message:
    _, start = read_varint(packet, 1, len(packet))
    return read_publish(packet[0], packet, start, len(packet), version)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 1, 127, 20000])
def test_publish(version: int, qos: int, size: int) -> None:
    message = read(packed(version, "a/ü", b"x" * size, qos), version)
    assert (message.topic, message.body, message.qos) == ("a/ü".encode(), b"x" * size, qos)
    assert (message.mid > 0) == (qos > 0)
    assert not message.dup and not message.retain and message.properties is None


def test_flags() -> None:
    packet = bytearray(packed(4, "a", b"", 1))
    packet[0] |= 9
    message = read(bytes(packet), 4)
    assert message.dup and message.retain and message.qos == 1


def test_properties() -> None:
    message = read(
        packed(
            5,
            "a",
            b"body",
            1,
            PayloadFormatIndicator=1,
            MessageExpiryInterval=60,
            ContentType="application/json",
            ResponseTopic="r",
            CorrelationData=b"\x00\x01",
            UserProperty=[("k", "1"), ("k", "2")],
        ),
        5,
    )
    assert message.body == b"body" and message.properties is not None
    found = message.properties
    assert (found.content_type, found.response_topic, found.correlation) == (b"application/json", b"r", b"\x00\x01")
    assert found.user == [(b"k", b"1"), (b"k", b"2")]


def test_damage_is_malformed() -> None:
    """Every cut and 20,000 random changes of a packet with all parts."""
    dice = random.Random(1)
    whole = packed(5, "topic/of/it", b"0123456789", 2, ContentType="t", UserProperty=("a", "b"), CorrelationData=b"c")
    for stop in range(2, len(whole)):
        read_or_malformed(whole[:stop])
    for _ in range(20_000):
        packet = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            packet[dice.randrange(2, len(packet))] = dice.randrange(256)
        read_or_malformed(bytes(packet))


def read_or_malformed(packet: bytes) -> None:
    try:
        message = read_publish(packet[0], packet, 2, len(packet), 5)
    except Malformed:
        return
    assert len(message.topic) + len(message.body) <= len(packet)


@pytest.mark.parametrize("packet", [b"\x36\x07\x00\x01a\x00\x01xx", b"\x32\x05\x00\x01a\x00\x00", b"\x30\x02\x00\x00"])
def test_wrong_qos_id_or_topic(packet: bytes) -> None:
    with pytest.raises(Malformed):
        read_publish(packet[0], packet, 2, len(packet), 4)


def test_varint() -> None:
    assert read_varint(b"\x7f", 0, 1) == (127, 1)
    assert read_varint(b"\x80\x01", 0, 2) == (128, 2)
    assert read_varint(b"\xff\xff\xff\x7f", 0, 4) == (268_435_455, 4)
    assert read_varint(b"\x80", 0, 1) == (0, -1)
    with pytest.raises(Malformed):
        read_varint(b"\x80\x80\x80\x80\x01", 0, 5)
