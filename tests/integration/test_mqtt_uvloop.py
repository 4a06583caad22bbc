"""The mqtt trigger on uvloop, which the processor uses where there is a wheel: its transports are its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_peer import Peer, running, spec_for
from tests.support.recording_sink import RecordingSink
from tests.support.tools import need_module


@pytest.mark.parametrize("tls", [False, True])
def test_receives_holds_back_reconnects_and_leaves(tmp_path: Path, tls: bool) -> None:
    require_mosquitto()
    uvloop = need_module("uvloop")
    with Mosquitto(tmp_path / "broker", tls=tls) as broker:
        uvloop.run(scenario(broker, tmp_path))


async def scenario(broker: Mosquitto, folder: Path) -> None:
    files = {"ca_file": "ca.crt", "cert_file": "client.crt", "key_file": "client.key"}
    keys = {key: f"{broker.folder}/{name}" for key, name in files.items()} if broker.tls else {}
    sink = RecordingSink(folder)
    sink.capacity, sink.hold = 5, True
    async with running(spec_for(broker.url, "uv/#", **keys), sink):
        await eventually(lambda: sink.state == "up")
        for restart in range(3):
            await asyncio.to_thread(send, broker, keys, 200 * restart)
            await eventually(lambda: len(sink.held) == 5)
            await eventually(lambda: all_finished(sink, 200 * (restart + 1)), within_s=30, every_s=0.001)  # noqa: B023
            await asyncio.to_thread(broker.stop)
            await eventually(lambda: sink.state.startswith("down"))
            await asyncio.to_thread(broker.start)
            await eventually(lambda: sink.state == "up")
    assert len(sink.events) <= 600 + 3 * sink.capacity  # what a broker was told too late comes again


def all_finished(sink: RecordingSink, events: int) -> bool:
    """Answers what is held; whether so many different events have come and been answered."""
    sink.finish_held()
    return {int(event.body) for event in sink.events} == set(range(events))


def send(broker: Mosquitto, keys: dict[str, str], first: int) -> None:
    def secure(client: object) -> None:
        if keys:
            client.tls_set(keys["ca_file"], keys["cert_file"], keys["key_file"])  # type: ignore[attr-defined]

    with Peer(broker.port, configure=secure) as peer:
        peer.send("uv/x", *[b"%d" % number for number in range(first, first + 200)])
