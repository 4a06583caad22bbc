"""What the trigger itself publishes: responses, birth and goodbye, within the limits the broker stated.

paho numbers, sends and resends; this keeps the broker's window (paho's own is fixed before the connection is made) and
a bound. A response that finds the bound reached, no connection, or a broker that takes no packet of its size is dropped
and counted by the caller: the event it answers was handled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties

from agent.triggers.mqtt.client import Client, packed_size
from agent.triggers.mqtt.spec import Announcement

MAX_WAITING = 1000
DEFAULT_WINDOW = 20
ROOM_FOR_HEAD = 1024
"""Bytes of a packet that are neither payload nor topic nor properties, generously."""


class Outbox:
    """Publishes through one client, at most `window` unacknowledged at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[tuple[str, bytes, int, bool, Properties | None]] = deque()
        self._unacknowledged: set[int] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._window = DEFAULT_WINDOW
        self._max_qos = 2
        self._max_bytes = 0

    def connected(self, properties: Any) -> None:
        """Take over the limits of the broker's CONNACK (MQTT 5; else the defaults stay)."""
        self._window = min(DEFAULT_WINDOW, getattr(properties, "ReceiveMaximum", DEFAULT_WINDOW))
        self._max_qos = getattr(properties, "MaximumQoS", 2)
        self._max_bytes = getattr(properties, "MaximumPacketSize", 0)
        self._fill()

    def publish(
        self, topic: str, body: bytes, qos: int, *, retain: bool = False, properties: Properties | None = None
    ) -> bool:
        """Send, or queue behind the window. False: dropped."""
        qos = min(qos, self._max_qos)
        size = len(body) + len(topic) + packed_size(properties)
        if self._max_bytes and size + ROOM_FOR_HEAD > self._max_bytes:
            return False
        if qos == 0:
            return self._client.publish(topic, body, 0, retain, properties).rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append((topic, body, qos, retain, properties))
        self._empty.clear()
        self._fill()
        return True

    def announce(self, announcement: Announcement) -> bool:
        """Publish a message of the trigger itself."""
        body = announcement.payload.encode()
        return self.publish(announcement.topic, body, announcement.qos, retain=announcement.retain)

    def acknowledged(self, mid: int) -> None:
        """The broker has taken over one of ours."""
        self._unacknowledged.discard(mid)
        self._fill()

    async def emptied(self, within_s: float) -> None:
        """Returns once everything is acknowledged, or after `within_s`."""
        try:
            await asyncio.wait_for(self._empty.wait(), within_s)
        except TimeoutError:
            return

    def _fill(self) -> None:
        while self._waiting and len(self._unacknowledged) < self._window:
            topic, body, qos, retain, properties = self._waiting.popleft()
            self._unacknowledged.add(self._client.publish(topic, body, qos, retain, properties).mid)
        if not self._waiting and not self._unacknowledged:
            self._empty.set()
