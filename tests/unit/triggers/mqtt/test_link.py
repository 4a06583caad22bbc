"""Framing, the brake, and what is too large, on a transport in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.triggers.mqtt import link as link_module
from agent.triggers.mqtt.link import PACKETS_PER_TURN, Link
from tests.support.eventually import eventually


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.written = b""
        self.closed = ""
        self.protocol: Link | None = None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.closed)

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"
        assert self.protocol is not None
        self.protocol.connection_lost(None)


class Receiver:
    def __init__(self) -> None:
        self.room = 10**9
        self.got: list[tuple[str, bytes]] = []

    @property
    def full(self) -> bool:
        return self.room <= 0

    def on_publish(self, head: int, data: bytes, start: int, stop: int) -> None:
        self.room -= 1
        self.got.append(("publish", data[start:stop]))

    def on_oversized(self, head: int, data: bytes, start: int) -> None:
        topic_bytes = data[start] << 8 | data[start + 1]
        self.got.append(("oversized", data[start + 2 : start + 2 + topic_bytes]))

    def on_pubrel(self, mid: int) -> None:
        self.got.append(("pubrel", b"%d" % mid))

    def on_control(self, packet: bytes) -> None:
        self.got.append(("control", packet))

    def on_lost(self, why: str) -> None:
        self.got.append(("lost", why.encode()))


def make(max_packet: int = 1 << 20) -> tuple[Link, Transport, Receiver]:
    receiver, transport = Receiver(), Transport()
    link = Link(receiver, max_packet, 0.0)
    transport.protocol = link
    link.connection_made(transport)
    return link, transport, receiver


def publish(body: bytes) -> bytes:
    content = b"\x00\x01t" + body
    size, head = len(content), b"\x30"
    while True:
        size, low = divmod(size, 128)
        head += bytes([low | (128 if size else 0)])
        if not size:
            return head + content


STREAM = publish(b"one") + b"\xd0\x00" + publish(b"x" * 300) + b"\x62\x02\x01\x02" + publish(b"")
SEEN = [
    ("publish", b"\x00\x01tone"),
    ("control", b"\xd0\x00"),
    ("publish", b"\x00\x01t" + b"x" * 300),
    ("pubrel", b"258"),
    ("publish", b"\x00\x01t"),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100, 1000])
def test_pieces_of_any_size(piece: int) -> None:
    link, _, receiver = make()
    for at in range(0, len(STREAM), piece):
        link.data_received(STREAM[at : at + piece])
    assert receiver.got == SEEN


def test_a_large_packet_is_joined_once() -> None:
    link, _, receiver = make(1 << 26)
    packet = publish(b"y" * (20 << 20))
    for at in range(0, len(packet), 1 << 16):
        link.data_received(packet[at : at + (1 << 16)])
    assert [len(body) for _, body in receiver.got] == [3 + (20 << 20)]


async def test_full_stops_reading_until_there_is_room() -> None:
    link, transport, receiver = make()
    receiver.room = 2
    link.data_received(publish(b"a") * 5 + b"\xd0\x00")
    assert len(receiver.got) == 2 and not transport.reading and link.held

    async def room() -> None:
        receiver.room = 2
        await asyncio.sleep(0)

    pump = asyncio.create_task(link.pump(room))
    await eventually(lambda: not link.held and len(receiver.got) == 6)
    pump.cancel()
    assert transport.reading and [kind for kind, _ in receiver.got] == ["publish"] * 5 + ["control"]


async def test_data_that_still_comes_while_held_is_kept_in_order() -> None:
    link, _, receiver = make()
    receiver.room = 0
    link.data_received(publish(b"a"))
    link.data_received(publish(b"b"))
    receiver.room = 9
    link.go_on()
    assert [body[3:] for _, body in receiver.got] == [b"a", b"b"]


async def test_a_flood_gives_others_a_turn() -> None:
    link, transport, receiver = make()
    link.data_received(publish(b"a") * (2 * PACKETS_PER_TURN + 1))
    assert len(receiver.got) == PACKETS_PER_TURN and not transport.reading and not link.held
    await eventually(lambda: len(receiver.got) == 2 * PACKETS_PER_TURN + 1)
    assert transport.reading


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_too_large_is_named_and_thrown_away(piece: int) -> None:
    link, _, receiver = make(1024)
    stream = publish(b"z" * 5000) + publish(b"after")
    for at in range(0, len(stream), piece):
        link.data_received(stream[at : at + piece])
    assert receiver.got == [("oversized", b"t"), ("publish", b"\x00\x01tafter")]


def test_protocol_errors_end_it() -> None:
    for stream in (b"\x30\xff\xff\xff\xff\x01", b"\x62\x01\x00", b"\x20\xff\x7f" + b"x" * 20):
        link, _, receiver = make(1024)
        link.data_received(stream)
        assert receiver.got[-1][0] == "lost"


def test_writes_nothing_once_closed() -> None:
    link, transport, _ = make()
    link.write(b"a")
    transport.close()
    link.write(b"b")
    link.connection_lost(None)
    link.write(b"c")
    assert transport.written == b"a"


async def test_a_peer_that_does_not_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "CLOSE_S", 0.01)
    link, transport, receiver = make()
    await link.close(polite=True)
    assert transport.closed == "aborted" and receiver.got[-1][0] == "lost"
