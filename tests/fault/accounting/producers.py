"""Producers that number every event, and know which numbers their source is answerable for.

A number counts as sent when the source has it for good: acknowledged by the broker (and, before the broker is killed,
in its store), a whole line in a file, a request that was answered 2xx. Each producer sends from a thread of its own.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.eventually import wait_until

PAUSE = threading.Event()  # never set: a wait on it is a pause


class Producer(ABC):
    """`send` numbers; afterwards `sent` holds those that the source is answerable for."""

    def __init__(self) -> None:
        self.sent: set[int] = set()

    @abstractmethod
    def send(self, numbers: Iterable[int], per_second: float) -> None:
        """Returns once every number is sent."""

    def close(self) -> None:
        return


def paced(numbers: Iterable[int], per_second: float) -> Iterable[int]:
    began = time.monotonic()
    for count, number in enumerate(numbers):
        ahead = began + count / per_second - time.monotonic()
        if ahead > 0.005:
            PAUSE.wait(ahead)
        yield number


class MqttProducer(Producer):
    """QoS 1 with a session of its own, MQTT 5 with the number as the user property `id`."""

    def __init__(self, port: int, topic: str) -> None:
        super().__init__()
        self._topic = topic
        self._lock = threading.Lock()
        self._packets: dict[int, int] = {}  # of each number of this block, the packet id it was last sent with
        self._acknowledged: set[int] = set()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"producer-{uuid.uuid4()}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.on_publish = lambda client, data, mid, reason, properties: self._acknowledged.add(mid)
        self.client.reconnect_delay_set(1, 1)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self.client.loop_start()

    def _publish(self, number: int) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("id", f"{self._topic}-{number}")]
        packet = self.client.publish(self._topic, b"%d" % number, 1, properties=properties).mid
        with self._lock:
            self._packets[number] = packet

    def send(self, numbers: Iterable[int], per_second: float) -> None:
        numbers = list(numbers)
        for number in paced(numbers, per_second):
            self._publish(number)
        wait_until(lambda: self.acknowledged() >= set(numbers), within_s=60)
        self.sent.update(numbers)

    def acknowledged(self) -> set[int]:
        with self._lock:
            return {number for number, packet in self._packets.items() if packet in self._acknowledged}

    def again(self, safe: set[int]) -> None:
        """After a broker's death: publish again what it acknowledged without having it in its store."""
        for number in self.acknowledged() - safe:
            self._publish(number)

    def forget(self) -> None:
        """The block is handled; its packet ids may be used again."""
        with self._lock:
            self._packets.clear()
            self._acknowledged.clear()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class FileProducer(Producer):
    """A line a number, each written at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def send(self, numbers: Iterable[int], per_second: float) -> None:
        for number in paced(numbers, per_second):
            os.write(self._fd, b"%d\n" % number)
            self.sent.add(number)

    def close(self) -> None:
        os.close(self._fd)


class HttpProducer(Producer):
    """Asks again until it is answered 2xx, always with the same Idempotency-Key."""

    CLIENTS = 8

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._own = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def send(self, numbers: Iterable[int], per_second: float) -> None:
        with ThreadPoolExecutor(self.CLIENTS) as pool:
            asked = [pool.submit(self._one, number) for number in paced(numbers, per_second)]
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        for one in asked:
            one.result()

    def _one(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while not self._accepted(number):
            assert time.monotonic() < deadline, f"number {number} was not accepted for a minute"
            PAUSE.wait(0.02)
        self.sent.add(number)

    def _accepted(self, number: int) -> bool:
        connection: Any = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._connections.append(connection)
        try:
            connection.request("POST", "/", b"%d" % number, {"Idempotency-Key": f"n{number}"})
            answer = connection.getresponse()
            answer.read()
            if answer.getheader("Connection", "").lower() == "close":
                connection.close()
            return bool(200 <= answer.status < 300)
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
