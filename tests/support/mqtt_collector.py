"""Subscribes with a session that outlives connections, and keeps what comes: for tests that count messages."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


class Collector:
    """Use as a context manager. MQTT 3.1.1, so that the broker keeps the session however it is restarted."""

    def __init__(self, port: int, topic: str = "#", qos: int = 2) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._topic, self._qos = topic, qos
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"collector-{uuid.uuid4()}", clean_session=False
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = lambda client, data, message: self.messages.append((message.topic, message.payload))
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_connect(self, client: Any, data: Any, flags: Any, *_: Any) -> None:
        if not flags.session_present:
            self._client.subscribe(self._topic, self._qos)

    def __enter__(self) -> Collector:
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def bodies(self, topic: str) -> list[bytes]:
        """Of one topic, in the order they came."""
        return [body for name, body in self.messages.copy() if name == topic]

    def topics(self) -> set[str]:
        return {name for name, _ in self.messages.copy()}

    def numbers(self) -> Counter[int]:
        """How often each number came, whatever its topic."""
        return Counter(int(body) for _, body in self.messages.copy())


def first_copies(bodies: list[bytes]) -> list[bytes]:
    """Without those that came before."""
    return list(dict.fromkeys(bodies))
