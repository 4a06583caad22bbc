"""What functions publish: stored with the end of their event, sent in order, counted message by message."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Result
from agent.model.outlet import Parcel
from agent.processor.delivery.group import Group
from agent.processor.delivery.store import Store
from bindings.mqtt.sender import UNSTATED_WINDOW, Sender
from tests.support.broker_faults import Proxy
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, free_port, require_mosquitto
from tests.support.mqtt_collector import Collector, first_copies
from tests.support.mqtt_peer import Peer
from tests.support.processor import RunningProcessor, running

PUBLISH = """
    def handler(context, event):
        number = int(event.body)
        context.publish("cloud", event.body, topic=f"readings/{number % 7}", qos=QOS)
        return "done"
"""
FREE = {"minFreeBytes": 0, "minFreePercent": 0}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path / "broker", extra="log_type none") as broker:
        yield broker


def spec_of(url: str, *, version: int = 4, topic: str = "", **outbox: Any) -> dict[str, Any]:
    attributes = {"protocolVersion": version, "reconnectDelay": "20ms", "maxReconnectDelay": "200ms"}
    return {
        "bindings": {"cloud": {"kind": "mqtt", "url": url, "topic": topic, "attributes": attributes}},
        "outbox": FREE | outbox,
    }


def outbox_of(f: RunningProcessor) -> dict[str, Any]:
    found: dict[str, Any] = f.processor.statistics()["outbox"]
    return found


def target(f: RunningProcessor, name: str = "cloud") -> dict[str, Any]:
    found: dict[str, Any] = outbox_of(f)["targets"].get(name, {})
    return found


async def publish(f: RunningProcessor, numbers: range) -> None:
    outcomes = await asyncio.gather(*(f.start(b"%d" % number, deliver=True) for number in numbers))
    assert {(outcome.result, outcome.status) for outcome in outcomes} == {(Result.REPLIED, 200)}


def assert_in_order(collector: Collector) -> None:
    """Of each topic, first copies grow."""
    for topic in collector.topics():
        numbers = [int(body) for body in first_copies(collector.bodies(topic))]
        assert numbers == sorted(numbers)


async def test_what_a_handler_publishes_arrives_with_what_belongs_to_it(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        def handler(context, event):
            context.publish("cloud", {"t": 21.5}, headers={"unit": "C"}, retain=True, qos=2)
    """
    with Peer(broker.port, version=5, subscribe="#") as peer:
        async with running(tmp_path, code, spec=spec_of(broker.url, version=5, topic="room/1")) as f:
            assert (await f.call()).ok
            message = await eventually(lambda: peer.messages and peer.messages[0])
            await eventually(lambda: target(f)["queued"] == 0)
        assert (message.topic, message.payload) == ("room/1", b'{"t": 21.5}')
        assert message.properties.ContentType == "application/json"
        headers = dict(message.properties.UserProperty)
        assert headers["unit"] == "C"
        assert headers["X-Headrace-Seq"] == "1"
        assert headers["X-Headrace-Source"].startswith("headrace-f-cloud-outbox-")
        assert "X-Headrace-Historical" not in headers
    with Peer(broker.port, subscribe="room/#") as late:
        await eventually(lambda: late.messages and late.messages[0].retain)


async def test_a_failed_event_publishes_nothing_but_what_it_sent_now(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        def handler(context, event):
            context.publish("cloud", "with the event", topic="a")
            context.publish("cloud", "now", topic="a", now=True)
            if event.body == b"fail":
                raise RuntimeError("told to")
    """
    with Collector(broker.port) as collector:
        async with running(tmp_path, code, spec=spec_of(broker.url)) as f:
            assert (await f.call(b"fail")).status == 500
            assert (await f.call(b"ok")).ok
            await eventually(lambda: target(f)["sent"] == 3)
            assert outbox_of(f)["discarded"] == {"failed": 1}
        assert collector.bodies("a") == [b"now", b"now", b"with the event"]


async def test_mistakes_are_told_in_the_handler(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        def handler(context, event):
            told = []
            for arguments in (("clod", b""), ("cloud", b""), ("a/b", b"")):
                try:
                    context.publish(*arguments)
                except ValueError as error:
                    told.append(str(error))
            for keys in ({"topic": "a/#"}, {"topic": "a", "qos": 3}, {"topic": "a", "headers": {":x": 1}}):
                try:
                    context.publish("cloud", b"", **keys)
                except ValueError as error:
                    told.append(str(error))
            try:
                context.publish("cloud", bytes(2000), topic="a")
            except ValueError as error:
                told.append(str(error))
            return told
    """
    async with running(tmp_path, code, spec=spec_of(broker.url) | {"maxBodyBytes": 1000}) as f:
        told = (await f.call()).body.decode()
    for text in ("no binding 'clod'", "there are cloud", "has no topic of its own", "no binding 'a/b'", "is no topic"):
        assert text in told
    for text in ("qos 3", "does not begin with a colon", "2000 bytes is over the function's maxBodyBytes, 1000"):
        assert text in told


async def test_a_bare_topic_goes_to_the_first_mqtt_triggers_broker(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        def handler(context, event):
            context.publish("out/" + event.body.decode(), event.body)
            context.publish("m", event.body, topic="out")
    """
    trigger = {"kind": "mqtt", "url": broker.url, "clientID": "mine", "subscriptions": [{"topic": "in", "qos": 1}]}
    with Collector(broker.port, "out/#") as collector, Peer(broker.port) as peer:
        async with running(tmp_path, code, spec={"triggers": {"m": trigger}, "outbox": FREE}) as f:
            await eventually(lambda: f.processor.statistics()["triggers"]["m"]["up"])
            assert outbox_of(f)["targets"] == {}  # nothing is connected for functions that never publish
            assert not (tmp_path / "state" / "delivery.db").exists()
            await peer.publish("in", b"x")
            await eventually(lambda: len(collector.messages) == 2)
            assert f.processor.statistics()["triggers"]["m"]["up"]  # the two did not throw each other out
    assert sorted(collector.messages) == [("out", b"x"), ("out/x", b"x")]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_restarted_in_the_middle_of_2000(
    tmp_path: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    """The broker is stopped, stays away, and comes back; the link is cut besides."""
    unacknowledged: list[int] = []  # at each reconnect
    begun: list[int] = []
    send_again, start = Sender._send_again, Sender._start

    def recording(self: Sender, session_present: bool) -> None:
        unacknowledged.append(len(self._in_flight))
        send_again(self, session_present)

    def counting(self: Sender, parcel: Parcel, mid: int) -> None:
        begun.append(parcel.number)
        start(self, parcel, mid)

    monkeypatch.setattr(Sender, "_send_again", recording)
    monkeypatch.setattr(Sender, "_start", counting)
    code = PUBLISH.replace("QOS", str(qos))
    async with Proxy(broker.port) as proxy:
        with Collector(broker.port, "readings/#") as collector:
            async with running(tmp_path, code, spec=spec_of(proxy.url), queueSize=5000) as f:
                publishing = asyncio.create_task(publish(f, range(2000)))
                await eventually(lambda: target(f).get("sent", 0) > 200)
                proxy.cut()
                await eventually(lambda: target(f)["sent"] > 400)
                await asyncio.to_thread(broker.stop)
                await publishing  # the handlers do not notice
                assert target(f)["queued"] > 0
                await asyncio.to_thread(broker.start)
                await eventually(lambda: target(f)["sent"] == 2000, within_s=20)
                await eventually(lambda: len(collector.numbers()) == 2000, within_s=20)
                assert (target(f)["queued"], target(f)["bytes"], target(f)["dropped"]) == (0, 0, {})
    numbers = collector.numbers()
    doubled = sum(numbers.values()) - 2000
    assert set(numbers) == set(range(2000))
    # We send again what was unacknowledged when a connection broke, and nothing else. The broker does so too, to its
    # subscriber: how much that is, is not ours to say, but at QoS 2 it is nothing.
    assert sorted(begun) == list(range(1, 2001))
    assert max(unacknowledged) <= UNSTATED_WINDOW
    assert doubled == 0 or qos == 1
    assert_in_order(collector)


async def test_offline_from_the_start_and_over_restarts(tmp_path: Path) -> None:
    """More than memory is meant for; sent in order once there is a broker, the late ones marked."""
    require_mosquitto()
    code = PUBLISH.replace("QOS", "1")
    port = free_port()
    spec = spec_of(f"tcp://127.0.0.1:{port}", version=5, historicalAfter="1ms")
    for part in range(3):
        async with running(tmp_path, code, spec=spec, queueSize=5000) as f:
            await publish(f, range(part * 500, part * 500 + 500))
            await eventually(lambda: target(f)["why"])
            assert target(f)["queued"] == (part + 1) * 500
    broker = Mosquitto(tmp_path / "broker")
    broker.port = port
    text = (tmp_path / "broker" / "mosquitto.conf").read_text().splitlines()
    (tmp_path / "broker" / "mosquitto.conf").write_text("\n".join([f"listener {port} 127.0.0.1", *text[1:], ""]))
    with broker, Collector(port, "readings/#") as collector:
        async with running(tmp_path, code, spec=spec) as f:
            await eventually(lambda: target(f).get("sent") == 1500, within_s=20)
            await eventually(lambda: len(collector.messages) >= 1500)
            assert target(f)["oldest_s"] == 0
    assert set(collector.numbers()) == set(range(1500))
    assert_in_order(collector)


async def test_large_bodies_arrive_whole(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        import hashlib
        def handler(context, event):
            size = int(event.body)
            body = bytes(range(256)) * (size // 256)
            context.publish("cloud", body, topic="big")
            context.publish("cloud", memoryview(body), topic="big", qos=2)
            return hashlib.sha256(body).hexdigest()
    """
    with Collector(broker.port) as collector:
        async with running(tmp_path, code, spec=spec_of(broker.url)) as f:
            assert (await f.call(b"2097152")).ok
            await eventually(lambda: len(collector.messages) == 2)
    assert all(body == bytes(range(256)) * 8192 for body in collector.bodies("big"))


async def test_in_memory_only_where_the_specification_says_so(tmp_path: Path, broker: Mosquitto) -> None:
    with Collector(broker.port) as collector:
        spec = spec_of(broker.url, durable=False)
        async with running(tmp_path, PUBLISH.replace("QOS", "1"), spec=spec, queueSize=5000) as f:
            await publish(f, range(500))
            await eventually(lambda: target(f)["sent"] == 500)
        await eventually(lambda: len(collector.messages) == 500)
    assert not list((tmp_path / "state").glob("delivery*"))
    assert_in_order(collector)


# --- full -----------------------------------------------------------------------------------------------------------

BIG = """
    def handler(context, event):
        context.publish("cloud", event.body + bytes(10_000), topic="t")
"""


async def test_block_holds_events_back_until_there_is_room(tmp_path: Path) -> None:
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker")
    spec = spec_of(broker.url, maxBytes=100_000, whenFull="block")
    async with running(tmp_path, BIG, spec=spec) as f:
        waiting = [f.start(b"%02d" % number, deliver=True) for number in range(30)]
        await eventually(lambda: outbox_of(f)["held"])
        await eventually(lambda: sum(outcome.done() for outcome in waiting) == 9)
        assert target(f)["queued"] == 9
        assert target(f)["bytes"] <= 100_000
        with broker, Collector(broker.port) as collector:
            await asyncio.gather(*waiting)
            await eventually(lambda: len(collector.messages) == 30)
            assert [body[:2] for body in collector.bodies("t")] == [b"%02d" % number for number in range(30)]
        assert target(f)["dropped"] == {}


async def test_a_stop_leaves_held_events_to_their_source(tmp_path: Path) -> None:
    async with running(tmp_path, BIG, spec=spec_of("tcp://127.0.0.1:1", maxBytes=100_000)) as f:
        waiting = [f.start(b"%02d" % number, deliver=True) for number in range(12)]
        await eventually(lambda: sum(outcome.done() for outcome in waiting) == 9)
        assert outbox_of(f)["held"]
        f.processor.stop()
        outcomes = await asyncio.gather(*waiting)
    assert [outcome.result for outcome in outcomes] == [Result.REPLIED] * 9 + [Result.STOPPED] * 3


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
@pytest.mark.parametrize("durable", [True, False])
async def test_full_outboxes_drop_as_they_say(tmp_path: Path, policy: str, durable: bool) -> None:
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker")
    spec = spec_of(broker.url, maxBytes=100_000, whenFull=policy, durable=durable)
    async with running(tmp_path, BIG, spec=spec) as f:
        for number in range(30):
            assert (await f.call(b"%02d" % number)).ok
        assert target(f)["queued"] == 9
        assert target(f)["bytes"] <= 100_000
        assert target(f)["dropped"] == {policy.removeprefix("drop-"): 21}
        with broker, Collector(broker.port) as collector:
            await eventually(lambda: len(collector.messages) == 9)
    kept = range(21, 30) if policy == "drop-oldest" else range(9)
    assert [body[:2] for body in collector.bodies("t")] == [b"%02d" % number for number in kept]


async def test_the_oldest_go_also_where_they_are_on_the_disk_only(tmp_path: Path) -> None:
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker")
    code = BIG.replace("10_000", "500")
    spec = spec_of(broker.url, maxBytes=300_000, whenFull="drop-oldest")
    async with running(tmp_path, code, spec=spec, queueSize=5000) as f:
        await asyncio.gather(*(f.start(b"%04d" % number, deliver=True) for number in range(2000)))
        await eventually(lambda: target(f)["bytes"] <= 300_000)
        kept = target(f)["queued"]
        assert kept > 256
        with broker, Collector(broker.port) as collector:
            await eventually(lambda: len(collector.messages) == kept)
        assert target(f)["dropped"] == {"oldest": 2000 - kept}
    assert [body[:4] for body in collector.bodies("t")] == [b"%04d" % number for number in range(2000 - kept, 2000)]


async def test_what_init_context_publishes_is_sent_too(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        def init_context(context):
            context.publish("cloud", "ready", topic="state")
        def handler(context, event): ...
    """
    with Collector(broker.port) as collector:
        async with running(tmp_path, code, spec=spec_of(broker.url)):
            await eventually(lambda: collector.bodies("state") == [b"ready"])


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with running(tmp_path, BIG, spec=spec_of("tcp://127.0.0.1:1", maxAge="1s")) as f:
        assert (await f.call(b"old")).ok
        await eventually(lambda: target(f)["dropped"] == {"age": 1})
        assert (target(f)["queued"], target(f)["bytes"]) == (0, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_blocks_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    """The store cannot be written: events wait, unacknowledged, until it can."""
    require_mosquitto()
    broker = Mosquitto(tmp_path / "broker")
    (small_disk / "ballast").write_bytes(bytes(1_500_000))
    async with running(small_disk, BIG, spec=spec_of(broker.url), queueSize=5000) as f:
        waiting = [f.start(b"%03d" % number, deliver=True) for number in range(200)]
        await eventually(lambda: "cannot be written" in outbox_of(f)["trouble"])
        stored = sum(outcome.done() for outcome in waiting)
        assert stored < 200
        (small_disk / "ballast").unlink()
        with broker, Collector(broker.port) as collector:
            await asyncio.gather(*waiting)
            await eventually(lambda: target(f)["sent"] == 200, within_s=20)
            await eventually(lambda: len(collector.messages) == 200)
    assert [body[:3] for body in collector.bodies("t")] == [b"%03d" % number for number in range(200)]


# --- with the rest of delivery ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{"delivery": "effectively-once", "idFrom": "header:id"}, {"journal": True}])
async def test_the_end_of_an_event_and_what_it_published_are_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    together: list[tuple[bool, bool]] = []
    commit = Store.commit

    def recording(self: Store, group: Group, at: int) -> Any:
        stored = any(write.__self__.inserts for write in group.writes)  # type: ignore[attr-defined]
        ended = bool(group.removed or group.chunks)
        together.append((stored, ended))
        return commit(self, group, at)

    monkeypatch.setattr(Store, "commit", recording)
    keys = keys | ({"kind": "mqtt", "url": "tcp://127.0.0.1:1", "subscriptions": [{"topic": "a"}]})
    async with running(tmp_path, BIG, spec=spec_of("tcp://127.0.0.1:1"), **keys) as f:
        assert (await f.call(b"x", deliver=True, headers=[("id", "1")])).ok
        await eventually(lambda: target(f)["queued"] == 1 and (True, True) in together)
        if "journal" not in keys:
            assert (await f.call(b"x", deliver=True, headers=[("id", "1")])).ok  # known: the handler does not run
            assert target(f)["queued"] == 1
    assert (True, False) not in together


async def test_callers_get_503_while_a_full_outbox_blocks(tmp_path: Path) -> None:
    spec = spec_of("tcp://127.0.0.1:1", maxBytes=100_000)
    async with running(tmp_path, BIG, spec=spec, workerAvailabilityTimeoutMilliseconds=50) as f:
        for number in range(9):
            assert (await f.call(b"%02d" % number)).ok
        held = f.start(b"09")
        await eventually(lambda: outbox_of(f)["held"])
        assert (await f.call(b"10")).result is Result.NO_WORKER
        assert not held.done()


async def test_an_event_that_publishes_without_end_fails_alone(tmp_path: Path) -> None:
    code = """
        def handler(context, event):
            for _ in range(int(event.body)):
                context.publish("cloud", bytes(1000), topic="t")
    """
    async with running(tmp_path, code, spec=spec_of("tcp://127.0.0.1:1", maxBytes=1_000_000)) as f:
        outcome = await f.call(b"2000")
        assert (outcome.status, b"more than 1000000 bytes" in outcome.body) == (500, True)
        assert (await f.call(b"10")).ok
        assert target(f)["queued"] == 10


async def test_what_a_version_left_is_sent_by_the_next(tmp_path: Path, broker: Mosquitto) -> None:
    """Also while the binding was gone for a version."""
    spec = spec_of("tcp://127.0.0.1:1")
    async with running(tmp_path, BIG, spec=spec) as f:
        assert (await f.call(b"kept")).ok
    async with running(tmp_path, "def handler(context, event): ...", spec={"outbox": FREE}) as f:
        assert outbox_of(f)["targets"] == {}
    with Collector(broker.port) as collector:
        async with running(tmp_path, BIG, spec=spec_of(broker.url)):
            await eventually(lambda: [body[:4] for body in collector.bodies("t")] == [b"kept"])


async def test_an_async_handler_publishes_from_its_tasks(tmp_path: Path, broker: Mosquitto) -> None:
    code = """
        import asyncio
        async def handler(context, event):
            await asyncio.sleep(0.001)
            context.publish("cloud", event.body, topic="t/" + event.body.decode())
    """
    spec = spec_of(broker.url)
    with Collector(broker.port) as collector:
        async with running(tmp_path, code, spec=spec, mode="async") as f:
            await publish(f, range(100))
            await eventually(lambda: target(f)["sent"] == 100)
            await eventually(lambda: len(collector.topics()) == 100)


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_what_the_broker_will_never_take_does_not_stop_the_rest(tmp_path: Path) -> None:
    require_mosquitto()
    (tmp_path / "acl").write_text("topic read #\ntopic write good\n")
    code = """
        def handler(context, event):
            context.publish("cloud", b"1", topic="bad", qos=1)
            context.publish("cloud", b"2", topic="bad", qos=2)
            context.publish("cloud", bytes(5000), topic="good")
            context.publish("cloud", b"4", topic="good")
    """
    with (
        Mosquitto(tmp_path / "broker", extra=f"acl_file {tmp_path}/acl\nmax_packet_size 2000") as broker,
        Collector(broker.port) as collector,
    ):
        async with running(tmp_path, code, spec=spec_of(broker.url, version=5)) as f:
            assert (await f.call()).ok
            await eventually(lambda: collector.messages == [("good", b"4")])
            await eventually(lambda: target(f)["queued"] == 0)
            assert target(f)["dropped"] == {"refused": 2, "too_large": 1}


async def test_another_client_with_our_id_is_told(tmp_path: Path, broker: Mosquitto) -> None:
    spec = spec_of(broker.url, version=5)
    spec["bindings"]["cloud"]["attributes"]["clientID"] = "same"
    async with running(tmp_path, BIG, spec=spec) as f:
        await eventually(lambda: target(f)["up"])
        with Peer(broker.port, version=5, configure=lambda client: setattr(client, "_client_id", b"same")):
            await eventually(lambda: "client id" in target(f)["why"] or "client use the id" in target(f)["why"])


async def test_a_frozen_broker_is_noticed_and_nothing_is_lost(tmp_path: Path, broker: Mosquitto) -> None:
    spec = spec_of(broker.url)
    spec["bindings"]["cloud"]["attributes"] |= {"keepAlive": "1s", "connectTimeout": "200ms"}
    with Collector(broker.port, "t") as collector:
        async with running(tmp_path, BIG, spec=spec) as f:
            await eventually(lambda: target(f)["up"])
            broker.freeze()
            await asyncio.gather(*(f.start(b"%02d" % number, deliver=True) for number in range(50)))
            await eventually(lambda: not target(f)["up"])
            broker.thaw()
            await eventually(lambda: target(f)["sent"] == 50, within_s=15)
            await eventually(lambda: len(first_copies(collector.bodies("t"))) == 50)
    assert [body[:2] for body in first_copies(collector.bodies("t"))] == [b"%02d" % number for number in range(50)]


async def test_a_worker_that_writes_nonsense_fails_its_own_event_only(tmp_path: Path) -> None:
    code = """
        WRITES = {
            b"topic": ("cloud", [], b""),
            b"target": ("nobody", [(":topic", "a")], b""),
            b"qos": ("cloud", [(":topic", "a"), (":qos", "9")], b""),
            b"big": ("cloud", [(":topic", "a")], bytes(20 << 20)),
        }
        def handler(context, event):
            output = context._publisher._output
            output.channel.publish(output.current(), *WRITES[event.body])
    """
    async with running(tmp_path, code, spec=spec_of("tcp://127.0.0.1:1")) as f:
        workers = f.workers()
        for body, told in (
            (b"topic", b"without a topic"),
            (b"target", b"no binding 'nobody'"),
            (b"qos", b"unknown qos"),
            (b"big", b"over the function's maxBodyBytes"),
        ):
            outcome = await f.call(body)
            assert (outcome.status, told in outcome.body) == (500, True)
        assert target(f)["queued"] == 0
        assert f.workers() == workers
