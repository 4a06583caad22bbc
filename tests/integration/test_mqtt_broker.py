"""The mqtt trigger at a real mosquitto: protocols, security, events, responses, announcements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes

from agent.model.errors import SpecError
from agent.model.event import Outcome, Result
from agent.triggers.mqtt.client import properties_of
from agent.triggers.mqtt.spec import Announcement, Subscription
from agent.triggers.mqtt.trigger import run
from tests.support.broker_faults import Proxy
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_peer import Peer, running, spec_for
from tests.support.recording_sink import RecordingSink


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path_factory.mktemp("plain")) as started:
        yield started


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    require_mosquitto()
    with Mosquitto(tmp_path_factory.mktemp("tls"), tls=True) as started:
        yield started


@pytest.fixture
def sink(tmp_path: Path) -> RecordingSink:
    return RecordingSink(tmp_path)


@pytest.mark.parametrize("version", [4, 5])
async def test_every_qos_and_wildcards(broker: Mosquitto, sink: RecordingSink, version: int) -> None:
    wanted = [Subscription(topic=f"v{version}/{qos}/+/#", qos=qos) for qos in (0, 1, 2)]
    spec = spec_for(broker.url, protocol_version=version, subscriptions=wanted)
    with Peer(broker.port, version=version) as peer:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            assert sink.address == broker.url
            for qos in (0, 1, 2):
                await peer.publish(f"v{version}/{qos}/a/b", b"one", b"two", qos=qos)
            await peer.publish("elsewhere", b"no")
            await eventually(lambda: len(sink.events) == 6)
    for qos in (0, 1, 2):
        events = [event for event in sink.events if event.topic == f"v{version}/{qos}/a/b".encode()]
        assert [event.body for event in events] == [b"one", b"two"]
        assert all(event.path == event.topic and event.url == broker.url for event in events)
        assert [event.id == b"0" for event in events] == [qos == 0] * 2


@pytest.mark.parametrize("version", [4, 5])
async def test_messages_of_a_time_without_us_are_kept_for_us(
    broker: Mosquitto, sink: RecordingSink, tmp_path: Path, version: int
) -> None:
    spec = spec_for(broker.url, f"kept/{version}", protocol_version=version)
    async with running(spec, sink):
        await eventually(lambda: sink.state == "up")
    with Peer(broker.port) as peer:
        await peer.publish(f"kept/{version}", b"1", b"2", b"3")
    later = RecordingSink(tmp_path)
    async with running(spec, later):
        await eventually(lambda: len(later.events) == 3)
    assert not sink.events


@pytest.mark.parametrize("version", [4, 5])
async def test_tls_with_own_authority_and_client_certificate(
    tls_broker: Mosquitto, sink: RecordingSink, version: int
) -> None:
    folder = tls_broker.folder
    keys = {"ca_file": f"{folder}/ca.crt", "cert_file": f"{folder}/client.crt", "key_file": f"{folder}/client.key"}
    spec = spec_for(tls_broker.url, "tls/a", protocol_version=version, **keys)

    def with_tls(client: Any) -> None:
        client.tls_set(keys["ca_file"], keys["cert_file"], keys["key_file"])

    body = b"x" * 300_000  # more than one TLS record and one read
    with Peer(tls_broker.port, configure=with_tls) as peer:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("tls/a", body, b"small")
            await eventually(lambda: len(sink.events) == 2)
    assert [len(event.body) for event in sink.events] == [300_000, 5]


async def test_tls_refusals_are_states_that_say_why(tls_broker: Mosquitto, sink: RecordingSink) -> None:
    folder = tls_broker.folder
    async with running(spec_for(tls_broker.url, "a", insecure_skip_verify=True), sink):
        await eventually(lambda: sink.state.startswith("down"))  # no client certificate
    async with running(spec_for(tls_broker.url, "a"), sink):
        await eventually(lambda: "certificate verify failed" in sink.state)
    keys = {"ca_file": f"{folder}/ca.crt", "cert_file": f"{folder}/client.crt", "key_file": f"{folder}/client.key"}
    async with running(spec_for(tls_broker.url, "a", server_name="other.example", **keys), sink):
        await eventually(lambda: "other.example" in sink.state)
    async with running(spec_for(tls_broker.url, "a", server_name="localhost", **keys), sink):
        await eventually(lambda: sink.state == "up")


async def test_password_is_tried_again_and_never_shown(sink: RecordingSink, tmp_path: Path) -> None:
    require_mosquitto()
    secret = tmp_path / "password"
    secret.write_text("wrong")
    with Mosquitto(tmp_path / "broker", password="right") as broker:
        spec = spec_for(broker.url, "a", username="agent", password_file=str(secret))
        async with running(spec, sink):
            await eventually(lambda: "Not authorized" in sink.state)
            assert "wrong" not in sink.state
            secret.write_text("right\n")
            await eventually(lambda: sink.state == "up")
            secret.unlink()
            broker.stop()
            broker.start()
            await eventually(lambda: "passwordFile" in sink.state)


async def test_a_missing_file_ends_it_at_the_start(sink: RecordingSink) -> None:
    with pytest.raises(SpecError, match="caFile"):
        await run(spec_for("ssl://127.0.0.1:1", "a", ca_file="/does/not/exist"), sink)


async def test_properties_become_headers(broker: Mosquitto, sink: RecordingSink) -> None:
    properties = properties_of(PacketTypes.PUBLISH, ContentType="application/json", UserProperty=("k", "v"))
    with Peer(broker.port, version=5) as peer:
        async with running(spec_for(broker.url, "props", protocol_version=5), sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("props", b"{}", properties=properties)
            await eventually(lambda: sink.events)
    assert (sink.events[0].content_type, sink.events[0].headers) == (b"application/json", [(b"k", b"v")])


@pytest.mark.parametrize(("status", "body"), [(200, b"pong"), (500, b"broken")])
async def test_response_topic_is_answered(broker: Mosquitto, tmp_path: Path, status: int, body: bytes) -> None:
    sink = RecordingSink(tmp_path, lambda event: Outcome(Result.REPLIED, status, "text/plain", [("h", "v")], body))
    asked = properties_of(PacketTypes.PUBLISH, ResponseTopic=f"answers/{status}", CorrelationData=b"\x00id")
    with Peer(broker.port, version=5, subscribe=f"answers/{status}") as peer:
        async with running(spec_for(broker.url, "ask", protocol_version=5), sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("ask", b"ping", properties=asked)
            await eventually(lambda: peer.messages)
    answer = peer.messages[0]
    assert (answer.payload, answer.qos) == (body, 1)
    assert answer.properties is not None
    assert answer.properties.CorrelationData == b"\x00id"
    assert answer.properties.UserProperty == [("status", str(status)), ("h", "v")]


async def test_a_response_topic_that_is_none_harms_nobody(broker: Mosquitto, sink: RecordingSink) -> None:
    asked = properties_of(PacketTypes.PUBLISH, ResponseTopic="own/answers")
    with Peer(broker.port, version=5) as peer:
        async with running(spec_for(broker.url, "odd", protocol_version=5), sink):
            await eventually(lambda: sink.state == "up")
            await peer.publish("odd", b"x" * 1000, properties=asked)
            await peer.publish("odd", b"next")
            await eventually(lambda: len(sink.events) == 2)


async def test_birth_will_and_goodbye(broker: Mosquitto, sink: RecordingSink) -> None:
    def said(word: str) -> Announcement:
        return Announcement(topic="state/f", payload=word, qos=1, retain=True)

    with Peer(broker.port, subscribe="state/f") as peer:
        async with Proxy(broker.port) as proxy:
            spec = spec_for(proxy.url, "a", birth=said("up"), will=said("lost"), goodbye=said("down"))
            async with running(spec, sink):
                await eventually(lambda: len(peer.messages) == 1)
                proxy.cut()
                await eventually(lambda: len(peer.messages) == 3)
        await eventually(lambda: len(peer.messages) == 4)
        assert [message.payload for message in peer.messages] == [b"up", b"lost", b"up", b"down"]


async def test_shared_subscription_deals_messages_out(broker: Mosquitto, tmp_path: Path) -> None:
    sinks = [RecordingSink(tmp_path / name) for name in "ab"]
    specs = [spec_for(broker.url, "$share/team/shared/#", protocol_version=version) for version in (4, 5)]
    with Peer(broker.port) as peer:
        for sink in sinks:
            sink.state_dir.mkdir()
        async with running(specs[0], sinks[0]), running(specs[1], sinks[1]):
            await eventually(lambda: all(sink.state == "up" for sink in sinks))
            await peer.publish("shared/x", *[b"%d" % number for number in range(100)])
            await eventually(lambda: sum(len(sink.events) for sink in sinks) == 100)
    assert all(sink.events for sink in sinks)
    assert {bytes(event.body) for sink in sinks for event in sink.events} == {b"%d" % number for number in range(100)}


@pytest.mark.parametrize("version", [4, 5])
async def test_a_new_version_of_the_function_drops_old_filters(broker: Mosquitto, tmp_path: Path, version: int) -> None:
    name = f"drop-{version}"
    first, second = RecordingSink(tmp_path), RecordingSink(tmp_path)
    old = spec_for(broker.url, f"{name}/old", f"{name}/both", client_id=name, protocol_version=version)
    async with running(old, first):
        await eventually(lambda: first.state == "up")
    new = spec_for(broker.url, f"{name}/new", f"{name}/both", client_id=name, protocol_version=version)
    with Peer(broker.port) as peer:
        async with running(new, second):
            await eventually(lambda: second.state == "up")
            for topic in ("old", "both", "new"):
                await peer.publish(f"{name}/{topic}", topic.encode())
            await eventually(lambda: len(second.events) == 2)
    assert [event.body for event in second.events] == [b"both", b"new"]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_short_loss_brings_no_retained_messages_again(
    broker: Mosquitto, sink: RecordingSink, version: int
) -> None:
    topic = f"retained/{version}"
    with Peer(broker.port) as peer:
        await peer.publish(topic, b"old", retain=True)
        async with (
            Proxy(broker.port) as proxy,
            running(spec_for(proxy.url, topic, protocol_version=version), sink),
        ):
            await eventually(lambda: len(sink.events) == 1)
            sink.state = ""
            proxy.cut()
            await eventually(lambda: len(proxy.connections) == 2 and sink.state == "up")
            await peer.publish(topic, b"new")
            await eventually(lambda: len(sink.events) > 1)
    assert [event.body for event in sink.events] == [b"old", b"new"]


async def test_two_clients_with_one_id_are_told_and_slow_down(broker: Mosquitto, tmp_path: Path) -> None:
    sinks = [RecordingSink(tmp_path) for _ in range(2)]
    states: list[str] = []
    sinks[0].down = states.append  # type: ignore[method-assign]
    spec = spec_for(broker.url, "a", client_id="same")
    async with running(spec, sinks[1]):
        async with running(spec, sinks[0]):
            await eventually(lambda: any("does another client use the id 'same'?" in state for state in states))
        await eventually(lambda: sinks[1].state == "up")
