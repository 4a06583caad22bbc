"""A new version takes over under a real agent: two processors, one store, one session at the broker."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path

from tests.support.agent import Agent, running
from tests.support.eventually import wait_until
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_collector import Collector

CODE = """
def handler(context, event):
    context.publish("cloud", event.body, topic="x", qos=2)
    return "VERSION"
"""


def document(version: str, url: str) -> str:
    code = base64.b64encode(CODE.replace("VERSION", version).encode()).decode()
    binding = {"kind": "mqtt", "url": url, "attributes": {"protocolVersion": 5, "reconnectDelay": "20ms"}}
    spec = {
        "runtime": "python",
        "handler": "main:handler",
        "build": {"functionSourceCode": code},
        "triggers": {"h": {"kind": "http"}},
        "bindings": {"cloud": binding},
        "outbox": {"minFreeBytes": 0, "minFreePercent": 0},
    }
    return json.dumps({"metadata": {"name": "f"}, "spec": spec})


def test_nothing_is_lost_doubled_or_overtaken_by_a_new_version(tmp_path: Path) -> None:
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker", extra="log_type none")
    with broker, Collector(broker.port, "x") as collector, running(Agent(tmp_path)) as agent:
        agent.start()
        agent.write("f.yaml", document("one", broker.url))
        agent.serving("f")
        called = 0

        def call() -> bytes:
            nonlocal called
            address = agent.status("f")["triggers"]["h"]["address"]
            request = urllib.request.Request(address, data=b"%d" % called)
            with urllib.request.urlopen(request, timeout=10) as answer:
                called += 1
                return bytes(answer.read())

        for _ in range(100):
            assert call() == b"one"
        agent.write("f.yaml", document("two", broker.url))
        wait_until(lambda: call() == b"two", within_s=20)
        for _ in range(100):
            assert call() == b"two"
        wait_until(lambda: len(collector.messages) >= called, within_s=20)
        assert collector.bodies("x") == [b"%d" % number for number in range(called)]
        assert agent.status("f")["outbox"]["targets"]["cloud"]["up"]
        assert "does another client use" not in agent.log()
