"""Brokers and networks that misbehave: the mqtt trigger says what is wrong, never gives up and never storms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.triggers.mqtt.backoff import Backoff
from tests.support.broker_faults import CONNACK, Proxy, StubBroker, granted, suback
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, free_port, require_mosquitto
from tests.support.mqtt_peer import Peer, running, spec_for
from tests.support.recording_sink import RecordingSink


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path_factory.mktemp("plain")) as started:
        yield started


@pytest.fixture
def sink(tmp_path: Path) -> RecordingSink:
    return RecordingSink(tmp_path)


async def test_a_refused_subscription_shows_and_is_asked_again(sink: RecordingSink) -> None:
    """One filter of two refused: the granted one works meanwhile, on the same connection."""
    refusing = True

    def answer(mid: bytes, filters: int) -> bytes:
        return suback(mid, 1, 0x80) if refusing and filters == 2 else suback(mid, *[0x80 if refusing else 1] * filters)

    async with StubBroker(suback=answer) as stub, running(spec_for(stub.url, "stub/a", "stub/b"), sink):
        await eventually(lambda: sink.state.startswith("down: connected but not subscribed: stub/b"))
        stub.send(b"\x30\x09\x00\x06stub/a!")
        await eventually(lambda: sink.events)
        await eventually(lambda: sum(packet[0] == 0x82 for packet in stub.packets) >= 3)
        refusing = False
        await eventually(lambda: sink.state == "up")
        assert len(stub.connections) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda mid, filters: suback(mid, 1, 1), "answered 2 of 1 subscriptions"),
        (lambda mid, filters: suback(mid, 7), "broke the protocol"),
        (lambda mid, filters: None, "sent no SUBACK within 0.1 s"),
        (lambda mid, filters: b"\xf0\x00", "broke the protocol"),
        (lambda mid, filters: b"\x30\x02\x00\x00", "broke the protocol"),
        (lambda mid, filters: b"\x90\xff\xff\xff\xff\xff", "broke the protocol"),
    ],
)
async def test_wrong_answers_end_the_connection_and_it_tries_again(
    sink: RecordingSink, answer: object, told: str
) -> None:
    async with (
        StubBroker(suback=answer) as stub,  # type: ignore[arg-type]
        running(spec_for(stub.url, "stub/a", connect_timeout=0.1), sink),
    ):
        await eventually(lambda: told in sink.state)
        stub.suback = granted
        await eventually(lambda: sink.state == "up")


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Upper bounds of the delays that were drawn; each draw gives its bound."""
    drawn: list[float] = []

    def uniform(low: float, high: float) -> float:
        drawn.append(high)
        return high

    monkeypatch.setitem(Backoff.__init__.__kwdefaults__, "uniform", uniform)
    return drawn


@pytest.mark.parametrize("how", ["close at once", "refuse", "connect, then kick", "subscribe, then kick"])
async def test_back_off_grows(sink: RecordingSink, bounds: list[float], how: str) -> None:
    """Also when the connection came up: only one that lasts makes the next attempt an early one."""
    connack = {"close at once": b"", "refuse": b"\x20\x02\x00\x05"}.get(how, CONNACK)
    stub = StubBroker(connack=connack, kick=how == "connect, then kick")
    if how == "subscribe, then kick":
        stub.suback = lambda mid, filters: granted(mid, filters) + b"\xf0\x00"
    async with stub:
        spec = spec_for(stub.url, "stub/a", reconnect_delay=0.02, max_reconnect_delay=0.3)
        async with running(spec, sink):
            await eventually(lambda: len(bounds) == 7)
    assert bounds == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.3, 0.3, 0.3])
    gaps = [later - earlier for earlier, later in pairwise(stub.connections)]
    assert all(gap >= bound for gap, bound in zip(gaps, bounds, strict=False))


async def test_nobody_listens_then_somebody_does(sink: RecordingSink, tmp_path: Path) -> None:
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker")
    async with running(spec_for(broker.url, "a"), sink):
        await eventually(lambda: "cannot connect" in sink.state)
        with broker:
            await eventually(lambda: sink.state == "up")


async def test_unknown_host_is_a_state(sink: RecordingSink) -> None:
    async with running(spec_for("tcp://host.invalid", "a"), sink):
        await eventually(lambda: "cannot connect" in sink.state)


async def test_connecting_takes_no_longer_than_its_timeout(sink: RecordingSink) -> None:
    """A peer that accepts and says nothing."""
    async with StubBroker() as stub:
        stub.connack = CONNACK[:1]
        async with running(spec_for(stub.url, "stub/a", connect_timeout=0.1), sink):
            await eventually(lambda: "sent no CONNACK within 0.1 s" in sink.state)


async def test_cancelled_while_connecting_or_waiting(sink: RecordingSink) -> None:
    async with running(
        spec_for(f"tcp://127.0.0.1:{free_port()}", "a", reconnect_delay=30.0, max_reconnect_delay=60.0), sink
    ):
        await eventually(lambda: "cannot connect" in sink.state)
    async with StubBroker() as stub:
        stub.connack = CONNACK[:1]
        async with running(spec_for(stub.url, "stub/a"), sink):
            await eventually(lambda: stub.connections)


async def test_session_lost_is_subscribed_again_and_told(tmp_path: Path, sink: RecordingSink) -> None:
    require_mosquitto()
    with Mosquitto(tmp_path / "broker") as broker:
        async with running(spec_for(broker.url, "lost"), sink):
            await eventually(lambda: sink.state == "up")
            broker.kill()
            (broker.folder / "mosquitto.db").unlink(missing_ok=True)
            await eventually(lambda: sink.state.startswith("down"))
            broker.start()
            await eventually(lambda: sink.state == "up")
            with Peer(broker.port) as peer:
                await peer.publish("lost", b"again")
            await eventually(lambda: sink.events)
    assert sink.counters["sessions_lost"] == 1


@pytest.mark.parametrize("version", [4, 5])
async def test_cut_in_the_middle_of_packets(broker: Mosquitto, sink: RecordingSink, version: int) -> None:
    """A connection that breaks after any number of bytes: everything arrives, in whole."""
    topic = f"cut/{version}"
    sent = {b"%d" % number + b"x" * 400 for number in range(150)}
    async with Proxy(broker.port) as proxy, running(spec_for(proxy.url, topic, protocol_version=version), sink):
        await eventually(lambda: sink.state == "up")
        with Peer(broker.port) as peer:
            for number, body in enumerate(sorted(sent)):
                if number % 10 == 0:
                    proxy.cut_after = 7 * number + 3
                await peer.publish(topic, body)
                if number % 10 == 9:
                    await eventually(lambda: proxy.cut_after is None)
            await eventually(lambda: {bytes(event.body) for event in sink.events} >= sent)
    assert {bytes(event.body) for event in sink.events} == sent
    assert len(proxy.connections) > 10


async def test_a_silent_broker_is_noticed_by_keep_alive(tmp_path: Path, sink: RecordingSink) -> None:
    """Half open: the machine is there, its processes are not."""
    require_mosquitto()
    with Mosquitto(tmp_path / "broker") as broker:
        async with running(spec_for(broker.url, "silent", keep_alive=1.0, connect_timeout=0.3), sink):
            await eventually(lambda: sink.state == "up")
            broker.freeze()
            await eventually(lambda: sink.state.startswith("down"))
            broker.thaw()
            await eventually(lambda: sink.state == "up")


async def test_broker_says_goodbye_with_a_reason(sink: RecordingSink) -> None:
    states: list[str] = []
    plain = sink.down

    def down(why: str) -> None:
        states.append(why)
        plain(why)

    sink.down = down  # type: ignore[method-assign]
    async with (
        StubBroker(connack=b"\x20\x03\x00\x00\x00", suback=lambda mid, n: b"\x90\x04" + mid + b"\x00\x01") as stub,
        running(spec_for(stub.url, "stub/a", protocol_version=5, max_reconnect_delay=1.0), sink),
    ):
        await eventually(lambda: sink.state == "up")
        stub.send(b"\xe0\x02\x8e\x00")
        await eventually(lambda: any("clientID" in state for state in states))
        await eventually(lambda: sink.state == "up")
        stub.send(b"\xe0\x02\x8b\x00")
        await eventually(lambda: any("Server shutting down" in state for state in states))


async def test_idle_costs_no_wakeups(broker: Mosquitto, sink: RecordingSink) -> None:
    """With a keep-alive of a minute nothing of ours is due within the next ten seconds."""
    async with running(spec_for(broker.url, "idle", keep_alive=60.0), sink):
        await eventually(lambda: sink.state == "up")
        loop = asyncio.get_running_loop()
        due = [timer.when() - loop.time() for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert all(seconds > 10 for seconds in due if seconds > 0.5)
