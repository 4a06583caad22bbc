"""The broker's limits are kept, and what cannot be sent is told."""

from __future__ import annotations

from types import SimpleNamespace

from agent.triggers.mqtt import outbox as outbox_module
from agent.triggers.mqtt.client import Client
from agent.triggers.mqtt.outbox import Outbox
from agent.triggers.mqtt.spec import Announcement


def make(*, connected: bool = True) -> tuple[Outbox, Client, list[bytes]]:
    client = Client("me", 5, False)
    client.max_inflight_messages_set(0)
    sent: list[bytes] = []
    client.connect_async("h.invalid", 1883, 30)
    outbox = Outbox(client)
    client.on_publish = lambda c, d, mid, r, p: outbox.acknowledged(mid)
    if connected:
        client.open(sent.append)
        client.handle(b"\x20\x03\x00\x00\x00")
        sent.clear()
    return outbox, client, sent


async def test_window_of_the_broker() -> None:
    outbox, client, sent = make()
    outbox.connected(SimpleNamespace(ReceiveMaximum=2))
    for _ in range(3):
        assert outbox.publish("t", b"x", 1)
    assert len(sent) == 2
    mid = sent[0][5:7]
    client.handle(b"\x40\x02" + mid)
    assert len(sent) == 3


async def test_limits_on_size_and_qos() -> None:
    outbox, _, sent = make()
    outbox.connected(SimpleNamespace(MaximumPacketSize=4096, MaximumQoS=1))
    assert not outbox.publish("t", b"x" * 4000, 1)
    assert outbox.publish("t", b"x", 2)
    assert sent[0][0] == 0x32


async def test_bound(monkeypatch: object) -> None:
    outbox, _, sent = make()
    outbox.connected(SimpleNamespace(ReceiveMaximum=1))
    results = [outbox.publish("t", b"", 1) for _ in range(outbox_module.MAX_WAITING + 2)]
    assert results.count(False) == 1 and len(sent) == 1


async def test_without_a_connection_qos_0_is_lost_and_qos_1_waits() -> None:
    outbox, client, sent = make(connected=False)
    assert not outbox.publish("t", b"", 0)
    assert outbox.publish("t", b"later", 1)
    client.open(sent.append)
    client.handle(b"\x20\x03\x01\x00\x00")
    assert sent[-1].endswith(b"later")


async def test_emptied() -> None:
    outbox, client, sent = make()
    assert outbox.announce(Announcement(topic="bye", payload="x", qos=1, retain=True))
    assert sent[0][0] == 0x33
    await outbox.emptied(0.01)
    client.handle(b"\x40\x02" + sent[0][7:9])
    await outbox.emptied(60)
