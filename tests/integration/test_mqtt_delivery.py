"""What the mqtt trigger acknowledges, when, and what it never does twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Event, Outcome, Result
from agent.triggers.mqtt.spec import Subscription
from tests.support.broker_faults import Proxy, StubBroker
from tests.support.eventually import eventually, turns
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_peer import Peer, running, spec_for
from tests.support.recording_sink import RecordingSink

OK = Outcome(Result.REPLIED, 200)
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path_factory.mktemp("plain")) as started:
        yield started


@pytest.fixture
def sink(tmp_path: Path) -> RecordingSink:
    return RecordingSink(tmp_path)


def bodies(sink: RecordingSink) -> list[bytes]:
    return [bytes(event.body) for event in sink.events]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_unfinished_at_shutdown_goes_to_the_successor(
    broker: Mosquitto, tmp_path: Path, version: int, qos: int
) -> None:
    """Two handled, one never started: the successor with the same client id gets that one and no other."""
    outcomes = {b"0": OK, b"1": Outcome(Result.STOPPED), b"2": OK}
    first = RecordingSink(tmp_path, lambda event: outcomes[bytes(event.body)])
    first.hold = True
    spec = spec_for(broker.url, f"stop/{version}/{qos}", qos=qos, protocol_version=version)
    with Peer(broker.port) as peer:
        async with running(spec, first) as task:
            await eventually(lambda: first.state == "up")
            await peer.publish(spec.subscriptions[0].topic, *numbered(3), qos=qos)
            await eventually(lambda: len(first.events) == 3)
            task.cancel()
            await turns()
            await peer.publish(spec.subscriptions[0].topic, b"late", qos=qos)
            first.finish_held()
        assert bodies(first) == numbered(3)
        successor = RecordingSink(tmp_path)
        async with running(spec, successor):
            await eventually(lambda: len(successor.events) == 2)
            await peer.publish(spec.subscriptions[0].topic, b"last", qos=qos)
            await eventually(lambda: len(successor.events) == 3)
    assert bodies(successor) == [b"1", b"late", b"last"]


async def test_failed_after_all_attempts_is_acknowledged_and_counted(broker: Mosquitto, tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, lambda event: Outcome(Result.REPLIED, 500, attempts=5))
    spec = spec_for(broker.url, "failing")
    with Peer(broker.port) as peer:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("failing", *numbered(30))
            await eventually(lambda: sink.counters["failed"] == 30)
        again = RecordingSink(tmp_path)
        async with running(spec, again):
            await eventually(lambda: again.state == "up")
            await peer.publish("failing", b"next")
            await eventually(lambda: again.events)
    assert bodies(again) == [b"next"]


async def cut(proxy: Proxy, sink: RecordingSink) -> None:
    """Reset the connection; returns once there is another one."""
    sink.state, connections = "", len(proxy.connections)
    proxy.cut()
    await eventually(lambda: len(proxy.connections) > connections and sink.state == "up")


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_connection_cut_while_the_handler_works_runs_it_once(
    broker: Mosquitto, sink: RecordingSink, version: int, qos: int
) -> None:
    sink.hold = True
    topic = f"once/{version}/{qos}"
    with Peer(broker.port) as peer:
        async with (
            Proxy(broker.port) as proxy,
            running(spec_for(proxy.url, topic, qos=qos, protocol_version=version), sink),
        ):
            await eventually(lambda: sink.state == "up")
            await peer.publish(topic, *numbered(5), qos=qos)
            await eventually(lambda: len(sink.held) == 5)
            await cut(proxy, sink)
            await cut(proxy, sink)
            sink.hold = False
            sink.finish_held()
            await peer.publish(topic, b"after", qos=qos)
            await eventually(lambda: len(sink.events) == 6)
            await cut(proxy, sink)
            await peer.publish(topic, b"end", qos=qos)
            await eventually(lambda: sink.events[-1].body == b"end")
    assert bodies(sink)[:5] == numbered(5)
    assert set(bodies(sink)[5:]) == {b"after", b"end"}


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_slow_handler_holds_the_broker_back_and_loses_nothing(
    broker: Mosquitto, sink: RecordingSink, version: int, qos: int
) -> None:
    sink.capacity = 10
    sink.hold = True
    topic = f"slow/{version}/{qos}"
    async with running(spec_for(broker.url, topic, qos=qos, protocol_version=version), sink):
        await eventually(lambda: sink.state == "up")
        with Peer(broker.port) as peer:
            await peer.publish(topic, *[b"%d" % number + b"." * 500 for number in range(600)], qos=qos)
        await eventually(lambda: len(sink.held) == 10)
        held: list[int] = []

        def finished() -> bool:
            held.append(len(sink.held))
            sink.finish_held()
            return len(sink.events) >= 600

        await eventually(finished, within_s=30, every_s=0)
    assert max(held) <= 10
    assert [int(body.split(b".")[0]) for body in bodies(sink)] == list(range(600))


@VERSIONS
async def test_pings_go_on_while_reading_is_held(tmp_path: Path, sink: RecordingSink, version: int) -> None:
    """Three keep-alive intervals without reading: neither the broker nor we give the connection up."""
    require_mosquitto()
    sink.capacity, sink.hold = 1, True
    with Mosquitto(tmp_path / "broker", extra="log_type debug") as broker:
        async with running(spec_for(broker.url, "held", protocol_version=version, keep_alive=1.0), sink):
            await eventually(lambda: sink.state == "up")
            with Peer(broker.port) as peer:
                await peer.publish("held", *numbered(50))
            await eventually(lambda: broker.log.count("Received PINGREQ from test-") >= 3)
            sink.hold = False
            sink.finish_held()
            await eventually(lambda: len(sink.events) == 50)
        assert broker.log.count("as test-") == 1
    assert bodies(sink) == numbered(50)


async def test_at_most_once_is_acknowledged_before_it_runs(broker: Mosquitto, tmp_path: Path) -> None:
    first = RecordingSink(tmp_path, lambda event: Outcome(Result.STOPPED))
    first.hold = True
    wanted = [Subscription(topic="most/1", qos=1), Subscription(topic="most/2", qos=2)]
    spec = spec_for(broker.url, subscriptions=wanted, delivery="at-most-once")
    with Peer(broker.port) as peer:
        async with running(spec, first) as task:
            await eventually(lambda: first.state == "up")
            await peer.publish("most/1", b"1")
            await peer.publish("most/2", b"2", qos=2)
            await eventually(lambda: len(first.events) == 2)
            task.cancel()
            await turns()
            first.finish_held()
        again = RecordingSink(tmp_path)
        async with running(spec, again):
            await eventually(lambda: again.state == "up")
            await peer.publish("most/1", b"next")
            await eventually(lambda: again.events)
    assert bodies(again) == [b"next"]


async def test_acknowledgements_keep_the_order_of_receipt(sink: RecordingSink) -> None:
    sink.hold = True
    async with StubBroker() as stub, running(spec_for(stub.url, "stub/a"), sink):
        await eventually(lambda: sink.state == "up")
        stub.send(b"".join(b"\x32\x0b\x00\x06stub/a\x00" + bytes([mid, 0x30 + mid]) for mid in range(1, 6)))
        await eventually(lambda: len(sink.held) == 5)
        sink.held.reverse()
        sink.finish_held()
        await eventually(lambda: sum(packet[0] == 0x40 for packet in stub.packets) == 5)
    assert [packet[3] for packet in stub.packets if packet[0] == 0x40] == [1, 2, 3, 4, 5]


async def test_leaving_acknowledges_then_disconnects(sink: RecordingSink) -> None:
    """The broker would publish the will of one that leaves without DISCONNECT."""
    sink.hold = True
    async with StubBroker() as stub:
        async with running(spec_for(stub.url, "stub/a"), sink) as task:
            await eventually(lambda: sink.state == "up")
            stub.send(b"\x32\x0b\x00\x06stub/a\x00\x011\x32\x0b\x00\x06stub/a\x00\x022")
            await eventually(lambda: len(sink.held) == 2)
            task.cancel()
            await turns()
            sink.finish_held()
        await eventually(lambda: not stub.connected)
    assert [(packet[0], packet[3:]) for packet in stub.packets[1:]] == [(0x40, b"\x01"), (0x40, b"\x02"), (0xE0, b"")]


async def test_cancelled_twice_still_disconnects(sink: RecordingSink) -> None:
    """The processor's patience is over: what is at work is left to the successor."""
    sink.hold = True
    async with StubBroker() as stub:
        async with running(spec_for(stub.url, "stub/a"), sink) as task:
            await eventually(lambda: sink.state == "up")
            stub.send(b"\x32\x0b\x00\x06stub/a\x00\x011")
            await eventually(lambda: sink.held)
            task.cancel()
            await turns(20)  # it is waiting for its events now
            task.cancel()
            await eventually(task.done)
        await eventually(lambda: not stub.connected)
    assert [packet[0] for packet in stub.packets[1:]] == [0xE0]


async def test_too_large_is_dropped_and_the_next_one_arrives(broker: Mosquitto, sink: RecordingSink) -> None:
    spec = spec_for(broker.url, "large", max_packet_bytes=200_000)
    with Peer(broker.port) as peer:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("large", b"x" * 3_000_000, b"small")
            await eventually(lambda: sink.events)
            assert sink.counters["too_large"] == 1
        async with running(spec, sink):
            await peer.publish("large", b"next")
            await eventually(lambda: len(sink.events) == 2)
    assert bodies(sink) == [b"small", b"next"]


async def test_loop_stays_responsive_under_a_flood(broker: Mosquitto, tmp_path: Path) -> None:
    """8,000 messages wait for us; meanwhile nothing else on the loop waits for long."""
    sink = RecordingSink(tmp_path)
    spec = spec_for(broker.url, "flood")
    async with running(spec, sink):
        await eventually(lambda: sink.state == "up")
    with Peer(broker.port) as peer:
        await peer.publish("flood", *numbered(8_000))
    seen: list[int] = []
    async with running(spec, sink):

        def all_there() -> bool:
            seen.append(len(sink.events))
            return seen[-1] >= 8_000

        await eventually(all_there, within_s=30, every_s=0)
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 600


async def test_everything_stays_in_one_task_and_leaves_nothing(broker: Mosquitto, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    events: list[Event] = []

    def answer(event: Event) -> Any:
        events.append(event)
        return OK

    for _ in range(3):
        async with running(spec_for(broker.url, "leave"), sink := RecordingSink(tmp_path, answer)):
            await eventually(lambda: sink.state == "up")
    assert asyncio.all_tasks() == before
