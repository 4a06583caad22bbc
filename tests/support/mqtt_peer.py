"""The other side of an MQTT test: a paho client with its own thread that publishes and collects."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from agent.triggers.mqtt.spec import MqttSpec, Subscription
from agent.triggers.mqtt.trigger import run
from tests.support.recording_sink import RecordingSink


class Peer:
    """Use as a context manager. `publish` returns once the broker has acknowledged."""

    def __init__(self, port: int, *, version: int = 4, subscribe: str = "", configure: Any = None) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._ready = threading.Event()
        self._subscribe = subscribe
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"peer-{uuid.uuid4()}", protocol=MQTTProtocolVersion(version)
        )
        self.client.on_message = lambda client, data, message: self.messages.append(message)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._ready.set()
        if configure:
            configure(self.client)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_connect(self, *_: Any) -> None:
        if self._subscribe:
            self.client.subscribe(self._subscribe, 1)
        else:
            self._ready.set()

    def __enter__(self) -> Peer:
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(
        self, topic: str, *bodies: bytes, qos: int = 1, retain: bool = False, properties: Properties | None = None
    ) -> None:
        infos = [self.client.publish(topic, body, qos, retain, properties) for body in bodies]
        for info in infos:
            info.wait_for_publish(20)
            assert info.is_published()

    async def publish(self, topic: str, *bodies: bytes, **keys: Any) -> None:
        await asyncio.to_thread(self.send, topic, *bodies, **keys)


def spec_for(url: str, *topics: str, qos: int = 1, **keys: Any) -> MqttSpec:
    """A spec with short delays and a client id of its own."""
    given: dict[str, Any] = {
        "kind": "mqtt",
        "url": url,
        "client_id": f"test-{uuid.uuid4()}",
        "subscriptions": [Subscription(topic=topic, qos=qos) for topic in topics],
        "reconnect_delay": 0.02,
        "max_reconnect_delay": 0.2,
    }
    return MqttSpec(**{**given, **keys})


@asynccontextmanager
async def running(spec: MqttSpec, sink: RecordingSink) -> AsyncIterator[asyncio.Task[None]]:
    """The trigger at work; cancelled at the end, what is held answered, and waited for."""
    task = asyncio.create_task(run(spec, sink))
    try:
        yield task
    finally:
        if not task.cancelling():
            task.cancel()
        await asyncio.sleep(0)
        sink.hold = False
        sink.finish_held()
        await asyncio.gather(task, return_exceptions=True)
