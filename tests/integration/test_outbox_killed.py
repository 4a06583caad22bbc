"""A processor killed in the middle of publishing: what it had acknowledged was stored, and is sent by the next one.

At least once: none lost, order kept, some doubled. Effectively once, with QoS 2 on both sides: none lost, none doubled,
because the id of an event and what it published are one transaction, and because a packet id outlives the processor.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.agent import ROOT
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_collector import Collector, first_copies
from tests.support.mqtt_peer import Peer

TOTAL = 600
KILLS = 3

CODE = """
def handler(context, event):
    number = int(event.body)
    context.publish("cloud", event.body, topic=f"out/{number % 5}", qos=QOS)
"""


class Killable:
    """A processor as a process of its own, on one folder."""

    def __init__(self, folder: Path, spec: dict[str, Any], code: str) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "code").mkdir()
        (folder / "code" / "main.py").write_text(code)
        document = {
            "metadata": {"name": "f"},
            "spec": {
                "runtime": "python",
                "handler": "main:handler",
                "disableDefaultHTTPTrigger": True,
                "build": {"functionSourceCode": base64.b64encode(code.encode()).decode()},
            }
            | spec,
        }
        (folder / "processor.yaml").write_text(json.dumps(document))

    def start(self) -> None:
        command = [sys.executable, "-m", "agent.cli.main", "processor", str(self.folder)]
        with (self.folder / "processor.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def log(self) -> str:
        return (self.folder / "processor.log").read_text()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path / "broker", extra="log_type none") as broker:
        yield broker


def spec_of(broker: Mosquitto, **trigger: Any) -> dict[str, Any]:
    quick = {"protocolVersion": 5, "reconnectDelay": "20ms", "maxReconnectDelay": "200ms"}
    subscription = [{"topic": "in", "qos": 1}]
    return {
        "triggers": {"m": {"kind": "mqtt", "url": broker.url, "subscriptions": subscription} | quick | trigger},
        "bindings": {"cloud": {"kind": "mqtt", "url": broker.url, "attributes": quick}},
        "outbox": {"minFreeBytes": 0, "minFreePercent": 0},
    }


def with_id(number: int) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = [("id", str(number))]
    return properties


async def run_killed(folder: Path, broker: Mosquitto, spec: dict[str, Any], qos: int) -> Collector:
    """Everything handled and sent, in spite of the kills."""
    processor = Killable(folder, spec, CODE.replace("QOS", str(qos)))
    with Collector(broker.port, "out/#") as collector, Peer(broker.port, version=5) as peer:
        try:
            processor.start()
            await eventually(lambda: "source is up" in processor.log(), within_s=20)
            for number in range(TOTAL):
                peer.client.publish("in", b"%d" % number, 1, properties=with_id(number))
            for part in range(1, KILLS + 1):
                reached = part * TOTAL // (KILLS + 2)
                await eventually(lambda least=reached: len(collector.numbers()) >= least, within_s=20)
                await asyncio.to_thread(processor.end)
                processor.start()
            await eventually(lambda: len(collector.numbers()) == TOTAL, within_s=20)
            await asyncio.to_thread(processor.end, signal.SIGTERM)
        except AssertionError as error:
            raise AssertionError(f"{len(collector.numbers())} of {TOTAL}; {processor.log()[-3000:]}") from error
        finally:
            processor.end()
    return collector


def assert_in_order(collector: Collector) -> None:
    for topic in collector.topics():
        numbers = [int(body) for body in first_copies(collector.bodies(topic))]
        assert numbers == sorted(numbers)


async def test_at_least_once_loses_nothing_and_keeps_the_order(tmp_path: Path, broker: Mosquitto) -> None:
    (folder := tmp_path / "f").mkdir()
    collector = await run_killed(folder, broker, spec_of(broker), qos=1)
    numbers = collector.numbers()
    assert set(numbers) == set(range(TOTAL))
    # At each kill: the unacknowledged ones to the broker and those of the source, whose handlers run again.
    assert sum(numbers.values()) - TOTAL <= KILLS * (64 + 256)
    assert_in_order(collector)


async def test_effectively_once_and_qos_2_neither_lose_nor_double(tmp_path: Path, broker: Mosquitto) -> None:
    (folder := tmp_path / "f").mkdir()
    collector = await run_killed(folder, broker, spec_of(broker, delivery="effectively-once"), qos=2)
    assert collector.numbers() == dict.fromkeys(range(TOTAL), 1)
    assert_in_order(collector)
    assert os.path.getsize(folder / "state" / "delivery.db") < 1 << 20
