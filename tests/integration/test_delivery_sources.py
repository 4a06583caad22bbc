"""Journal and ids with real sources: HTTP requests, MQTT messages over broken connections, lines of a file."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.model.errors import SpecError
from agent.processor.delivery.commits import Commits
from tests.integration.test_delivery import JOURNAL, RECORD, bodies, counters, waiting
from tests.integration.test_delivery_faults import Disk
from tests.support.eventually import eventually
from tests.support.http_client import RawClient, Reply
from tests.support.mosquitto import Mosquitto, require_mosquitto
from tests.support.mqtt_peer import Peer
from tests.support.processor import RunningProcessor, config_for, running

HTTP: dict[str, Any] = {"kind": "http", "interval": None, "attributes": {"port": 0}}


async def port_of(f: RunningProcessor) -> int:
    await eventually(lambda: f.sink.statistics.up)
    return int(f.sink.statistics.address.rpartition(":")[2])


async def post(port: int, body: bytes, *headers: str) -> Reply:
    async with RawClient(port) as client:
        lines = "".join(f"{line}\r\n" for line in ("Host: x", f"Content-Length: {len(body)}", *headers))
        return await client.ask(f"POST / HTTP/1.1\r\n{lines}\r\n".encode() + body)


async def test_http_with_a_journal_answers_202_when_the_request_is_on_the_disk(tmp_path: Path) -> None:
    async with running(tmp_path, RECORD, **HTTP, **JOURNAL) as f:
        port = await port_of(f)
        replies = await asyncio.gather(*(post(port, b"%d" % n) for n in range(20)))
        assert {reply.status for reply in replies} == {202}
        await eventually(lambda: waiting(f) == 0)
    assert sorted(bodies(tmp_path), key=int) == [str(n) for n in range(20)]


async def test_http_with_a_disk_that_fails_answers_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(path: Path) -> Any:
        import sqlite3

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Disk)

    monkeypatch.setitem(Commits.__init__.__kwdefaults__, "connect", connect)
    async with running(tmp_path, RECORD, **HTTP, **JOURNAL) as f:
        port = await port_of(f)
        assert (await post(port, b"before")).status == 202
        Disk.fault = "disk I/O error"
        try:
            first = asyncio.create_task(post(port, b"held"))
            await eventually(lambda: f.sink.full)
            assert (await post(port, b"refused")).status == 503
        finally:
            Disk.fault = ""
        assert (await first).status == 202


async def test_an_idempotency_key_gets_the_stored_answer_again(tmp_path: Path) -> None:
    code = """
        count = 0
        def handler(context, event):
            global count
            count += 1
            return context.Response(body=f"number {count}", headers={"X-Count": str(count)}, status_code=201)
    """
    once = {"delivery": "effectively-once"}
    async with running(tmp_path, code, **HTTP, **once) as f:
        port = await port_of(f)
        first = await post(port, b"x", "Idempotency-Key: one")
        again = await post(port, b"x", "Idempotency-Key: one")
        other = await post(port, b"x", "Idempotency-Key: two")
        without = await post(port, b"x")
    assert (first.status, first.body, first.headers["x-count"]) == (201, b"number 1", "1")
    assert (again.status, again.body, again.headers["x-count"]) == (201, b"number 1", "1")
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert (other.body, without.body) == (b"number 2", b"number 3")
    async with running(tmp_path, code, **HTTP, **once) as f:
        after = await post(await port_of(f), b"x", "Idempotency-Key: one")
        assert (after.status, after.body) == (201, b"number 1")
        assert counters(f)["duplicates"] == 1


async def test_a_failed_request_may_be_made_again_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **HTTP, delivery="effectively-once") as f:
        port = await port_of(f)
        assert (await post(port, b"x", "Idempotency-Key: one")).status == 500
        (tmp_path / "fail").unlink()
        assert (await post(port, b"x", "Idempotency-Key: one")).status == 200
    assert bodies(tmp_path) == ["x", "x"]


async def test_an_answer_that_was_too_large_to_keep_is_said(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    return 'y' * 5000\n"
    keys = {"delivery": "effectively-once", "ids": {"maxAnswerBytes": 1000}}
    async with running(tmp_path, code, **HTTP, **keys) as f:
        port = await port_of(f)
        assert (await post(port, b"x", "Idempotency-Key: one")).status == 200
        again = await post(port, b"x", "Idempotency-Key: one")
        assert again.status == 409
        assert b"too large to keep" in again.body


async def test_mqtt_messages_sent_twice_are_handled_once(tmp_path: Path) -> None:
    require_mosquitto()
    with Mosquitto(tmp_path / "broker") as broker:
        keys: dict[str, Any] = {
            "kind": "mqtt",
            "interval": None,
            "url": broker.url,
            "delivery": "effectively-once",
            "attributes": {
                "protocolVersion": 5,
                "clientID": "once",
                "reconnectDelay": "50ms",
                "subscriptions": [{"topic": "a/#", "qos": 1}],
            },
        }
        async with running(tmp_path, RECORD, **keys) as f:
            await eventually(lambda: f.sink.statistics.up)
            with Peer(broker.port, version=5) as peer:
                for _ in range(2):
                    for number in range(100):
                        properties = Properties(PacketTypes.PUBLISH)
                        properties.UserProperty = [("id", f"event-{number}")]
                        await peer.publish(f"a/{number % 3}", b"%d" % number, properties=properties)
            await eventually(lambda: counters(f).get("duplicates") == 100)
    assert sorted(bodies(tmp_path), key=int) == [str(n) for n in range(100)]


async def test_mqtt_with_a_journal_is_acknowledged_while_the_handler_is_away(tmp_path: Path) -> None:
    require_mosquitto()
    (tmp_path / "fail").touch()
    with Mosquitto(tmp_path / "broker") as broker:
        keys: dict[str, Any] = {
            "kind": "mqtt",
            "interval": None,
            "url": broker.url,
            "retryDelay": "1h",
            "maxRetryDelay": "1h",
            "attributes": {"clientID": "kept", "subscriptions": [{"topic": "a/#", "qos": 1}]},
        }
        async with running(tmp_path, RECORD, **keys, **JOURNAL) as f:
            await eventually(lambda: f.sink.statistics.up)
            with Peer(broker.port) as peer:
                await peer.publish("a/b", *(b"%d" % n for n in range(300)))
            await eventually(lambda: waiting(f) == 300)  # more than the broker lets us have unacknowledged
        (tmp_path / "fail").unlink()
        (tmp_path / "seen").unlink()
        async with running(tmp_path, RECORD, **keys, **JOURNAL) as f:
            await eventually(lambda: waiting(f) == 0)
    assert bodies(tmp_path) == [str(n) for n in range(300)]  # one topic: in order


async def test_lines_of_a_file_that_are_read_again_are_not_handled_again(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("".join(f"line {n}\n" for n in range(50)))
    attributes = {"path": str(log), "read": "lines", "settle": "50ms"}
    keys: dict[str, Any] = {"kind": "file", "interval": None, "delivery": "effectively-once", "attributes": attributes}
    for _ in range(2):
        async with running(tmp_path, RECORD, **keys) as f:
            await eventually(lambda: f.sink.statistics.handled + counters(f).get("duplicates", 0) >= 50)
        (tmp_path / "state" / "t" / "positions.log").unlink()  # as if the place had not been written yet
    assert bodies(tmp_path) == [f"line {n}" for n in range(50)]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"delivery": "effectively-once"}, "no id"),
        ({"delivery": "at-most-once", "journal": True}, "at least once"),
        ({"orderKey": "colour"}, "orderKey"),
        ({"idFrom": "header:id"}, "effectively-once"),
        ({"journal": {"commitWindow": "2s"}}, "commitWindow"),
        ({"journal": {"whenFull": "panic"}}, "drop-oldest"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(tmp_path: Path, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        config_for(tmp_path, RECORD, **keys)


async def test_a_journal_does_not_keep_a_function_from_stopping_at_once(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(0.05)\n"
    async with running(tmp_path, code, **JOURNAL) as f:
        await asyncio.gather(*(f.call(b"%d" % n, deliver=True) for n in range(200)))
        f.processor.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await f.sink.drained()
        assert f.sink.statistics.handled < 100  # the rest is for the next start
