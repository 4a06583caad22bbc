"""A broker that dies ten times in the middle of a stream: nothing it is answerable for is lost.

What mosquitto promises: it acknowledges a message before its store is written (here on SIGUSR1 and on SIGTERM), so what
it took over after the last write is gone when it is killed, whoever the subscriber is. The publisher in this test does
what a publisher has to do with such a broker: a message counts as sent once the broker acknowledged it *and* wrote its
store, and whatever does not is published again after a crash. Then no number may be missing at the function; doubled
ones may be, that is what "at least once" says.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.model.event import Event
from agent.model.sink import Done
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_peer import running, spec_for
from tests.support.recording_sink import RecordingSink

TOTAL = 10_000
RESTARTS = 10


class Publisher:
    """Publishes numbers at QoS 1 with a session of its own. paho resends what was not acknowledged.

    Far fewer than 65,535 messages, so that a packet id stands for one number. No lock of ours around paho's calls:
    its callbacks come from another thread and hold paho's own.
    """

    def __init__(self, port: int, topic: str) -> None:
        self._topic = topic
        self._numbers: dict[int, int] = {}
        self._acknowledged: set[int] = set()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"publisher-{uuid.uuid4()}", clean_session=False
        )
        self.client.on_publish = lambda client, data, mid, reason, properties: self._acknowledged.add(mid)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def send(self, numbers: list[int]) -> None:
        for number in numbers:
            self._numbers[self.client.publish(self._topic, b"%d" % number, 1).mid] = number

    def acknowledged(self) -> set[int]:
        """The numbers the broker has acknowledged, at least once."""
        return {number for mid, number in self._numbers.copy().items() if mid in self._acknowledged}

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class LateSink(RecordingSink):
    """Answers each event some milliseconds later, so that many are unanswered whenever the broker dies."""

    def deliver(self, event: Event, done: Done) -> None:
        self.events.append(event)
        self.in_flight += 1
        asyncio.get_running_loop().call_later(random.uniform(0.0, 0.02), self._finish, event, done)


async def test_broker_killed_ten_times_in_a_stream(tmp_path: Path) -> None:
    await survive(tmp_path, version=4)


async def survive(tmp_path: Path, version: int) -> None:
    """The whole of it; also run for MQTT 5 by tests/fault."""
    require_mosquitto()
    sink = LateSink(tmp_path)
    with Mosquitto(tmp_path / "broker", extra="log_type none") as broker:
        async with running(spec_for(broker.url, "stream", protocol_version=version), sink):
            await eventually(lambda: sink.state == "up")
            publisher = Publisher(broker.port, "stream")
            try:
                await stream(broker, publisher)
                await eventually(lambda: len({bytes(event.body) for event in sink.events}) == TOTAL, within_s=30)
            finally:
                publisher.close()
    seen = Counter(int(event.body) for event in sink.events)
    assert set(seen) == set(range(TOTAL))
    assert sink.counters["sessions_lost"] == 0


async def stream(broker: Mosquitto, publisher: Publisher) -> None:
    """Ten parts; each breaks off in its middle, five times with SIGKILL and five times with SIGTERM."""
    part = TOTAL // RESTARTS
    broker.save()  # the sessions
    for count in range(RESTARTS):
        numbers = list(range(count * part, (count + 1) * part))
        await asyncio.to_thread(publisher.send, numbers)
        half = set(numbers[: part // 2])
        await eventually(lambda half=half: half <= publisher.acknowledged(), every_s=0.001)  # type: ignore[misc]
        await asyncio.to_thread(broker.save)
        safe = publisher.acknowledged() if count % 2 else half
        await asyncio.to_thread(broker.stop if count % 2 else broker.kill)
        doubtful = [number for number in publisher.acknowledged() if number not in safe and number in set(numbers)]
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(publisher.send, doubtful)
    await eventually(lambda: len(publisher.acknowledged()) == TOTAL, within_s=30)
