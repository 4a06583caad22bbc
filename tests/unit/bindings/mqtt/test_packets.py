"""What is sent is what the trigger's reader, written for what others send, takes it for."""

from __future__ import annotations

import pytest

from agent.model.outlet import Message
from agent.triggers.mqtt.packets import Malformed, read_publish, read_varint
from bindings.mqtt import packets

HEADERS = [("unit", "°C"), ("Content-Type", "text/plain")]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 1, 100, 200, 20_000, 3_000_000])
def test_a_publish_is_read_back(version: int, qos: int, size: int) -> None:
    message = Message("räume/1", b"x" * size, qos, True, HEADERS)
    packet = packets.publish(message, 777, qos, [("seq", "5")], again=True, version=version)
    length, start = read_varint(packet, 1, len(packet))
    assert start + length == len(packet)
    read = read_publish(packet[0], packet, start, len(packet), version)
    assert (read.topic.decode(), read.body, read.qos, read.retain) == (message.topic, message.body, qos, True)
    assert read.mid == (777 if qos else 0)
    assert read.dup is (qos > 0)
    if version == 5:
        assert read.properties is not None and read.properties.content_type == b"text/plain"
        assert read.properties.user == [(b"unit", "°C".encode()), (b"seq", b"5")]


def test_answers_of_both_versions_are_read() -> None:
    assert packets.read_answer(b"\x40\x02\x01\x02") == (packets.PUBACK, 0x102, 0)
    assert packets.read_answer(b"\x50\x03\x01\x02\x97") == (packets.PUBREC, 0x102, 0x97)
    assert packets.read_answer(b"\x70\x04\x01\x02\x92\x00") == (packets.PUBCOMP, 0x102, 0x92)
    assert packets.read_answer(b"\xd0\x00") is None


@pytest.mark.parametrize("packet", [b"\x40\x00", b"\x40\x01\x00", b"\x40\x05\x00\x01"])
def test_answers_that_cannot_be_are_refused(packet: bytes) -> None:
    with pytest.raises(Malformed):
        packets.read_answer(packet)
