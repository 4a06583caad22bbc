"""The HTTP listener over real sockets, on both event loops, in front of a sink that records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.event import Event, Outcome, Result
from agent.model.listen import Address, open_listener
from agent.triggers.http.spec import Cors, HttpSpec, Tls
from agent.triggers.http.trigger import run
from tests.support.eventually import eventually
from tests.support.http_client import RawClient
from tests.support.http_corpus import CORPUS, UNFINISHED, Case, get, post
from tests.support.recording_sink import RecordingSink

HELLO = get("Host: x")


def on_both_loops(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs `test(tmp_path)` on asyncio's own loop and on uvloop."""

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def both(loop: str, tmp_path: Path) -> None:
        (uvloop.run if loop == "uvloop" else asyncio.run)(test(tmp_path))

    both.__doc__ = test.__doc__
    return both


@contextlib.asynccontextmanager
async def serving(sink: RecordingSink, **keys: Any) -> AsyncIterator[int]:
    """The trigger, running; yields its TCP port (0: none). Leaving it cancels and waits, as a processor does."""
    task = asyncio.create_task(run(HttpSpec(kind="http", name="t", **keys), sink))
    try:
        await eventually(lambda: sink.address or task.done())
        if task.done():
            task.result()
        yield int(sink.address.rpartition(":")[2]) if sink.address.startswith("http") else 0
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def replying(**outcome: Any) -> Callable[[Event], Outcome]:
    return lambda event: Outcome(**({"result": Result.REPLIED, "status": 200, "content_type": "text/plain"} | outcome))


@on_both_loops
async def test_request_becomes_event_and_outcome_becomes_reply(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, replying(status=201, body=b"made", headers=[("X-A", "1"), ("Set-Cookie", "a=b")]))
    async with serving(sink) as port, RawClient(port) as client:
        reply = await client.ask(
            get("Host: x", "Content-Length: 3", "content-type: a/b", target="/a%20b/c?x=1&x=2", method="PUT") + b"abc"
        )
    event = sink.events[0]
    assert (event.method, event.path, event.fields, event.body) == ("PUT", "/a b/c", b"x=1&x=2", b"abc")
    assert event.content_type == b"a/b"
    assert event.headers == [(b"Host", b"x"), (b"Content-Length", b"3"), (b"content-type", b"a/b")]
    assert (reply.status, reply.body, reply.headers["x-a"], reply.headers["set-cookie"]) == (201, b"made", "1", "a=b")
    assert reply.headers["server"] == "headrace"
    assert reply.headers["date"].endswith("GMT")
    assert "connection" not in reply.headers


@on_both_loops
async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Whatever order the workers finish in."""
    sink = RecordingSink(tmp_path, lambda event: Outcome(Result.REPLIED, 200, "text/plain", [], event.path.encode()))
    sink.hold = True
    async with serving(sink) as port, RawClient(port) as client:
        client.send(b"".join(get("Host: x", target=f"/{n}") for n in range(10)))
        await eventually(lambda: len(sink.held) == 10)
        sink.held.reverse()
        sink.finish_held()
        assert [(await client.reply()).body for _ in range(10)] == [b"/%d" % n for n in range(10)]


@on_both_loops
async def test_pipeline_is_bounded(tmp_path: Path) -> None:
    """A client that sends a thousand requests at once has only a few of them under way, and gets all its answers."""
    sink = RecordingSink(tmp_path)
    sink.hold = True
    async with serving(sink) as port, RawClient(port) as client:
        client.send(HELLO * 1000)
        await eventually(lambda: len(sink.held) >= 16)
        most = 0
        for _ in range(1000):
            most = max(most, len(sink.held))
            await eventually(lambda: sink.held)
            sink.finish_held()
            if len(sink.events) == 1000 and not sink.held:
                break
        assert most <= 16
        for _ in range(1000):
            assert (await client.reply()).status == 200


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
async def test_corpus(case: Case, tmp_path: Path) -> None:
    """The right answer, then an end or a usable connection; another client notices nothing."""
    sink = RecordingSink(tmp_path)
    async with serving(sink) as port, RawClient(port) as other, RawClient(port) as client:
        client.send(case.data)
        assert (await client.reply()).status == case.status
        if case.goes_on:
            assert (await client.ask(HELLO)).status == 200
        else:
            assert await client.ended() == b""
        assert (await other.ask(post("Content-Length: 2", body=b"ok"))).body == b"ok"
    if case.status != 200:
        assert [event.body for event in sink.events] == [b"ok"]


@on_both_loops
async def test_corpus_byte_by_byte(tmp_path: Path) -> None:
    """Where the packets are cut makes no difference. Small cases only; all connections at once."""
    cases = [case for case in CORPUS if len(case.data) < 500]

    async def drip(case: Case, port: int) -> None:
        async with RawClient(port) as client:
            for byte in case.data:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (case.name, (await client.reply()).status) == (case.name, case.status)

    async with serving(RecordingSink(tmp_path)) as port, asyncio.TaskGroup() as clients:
        for case in cases:
            clients.create_task(drip(case, port))


@on_both_loops
async def test_unfinished_requests_are_closed_at_end_of_file(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    async with serving(sink) as port:
        for case in UNFINISHED:
            async with RawClient(port) as client:
                client.send(case.data)
                client.writer.write_eof()
                assert await client.ended() == b""
        assert not sink.events


@on_both_loops
async def test_half_closed_client_gets_its_answers(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.hold = True
    async with serving(sink) as port, RawClient(port) as client:
        client.send(HELLO + HELLO)
        client.writer.write_eof()
        await eventually(lambda: len(sink.held) == 2)
        sink.finish_held()
        assert [(await client.reply()).status for _ in range(2)] == [200, 200]
        assert await client.ended() == b""


@on_both_loops
async def test_expect_continue(tmp_path: Path) -> None:
    """100 before the body, only when the body will be taken, and in its turn."""
    sink = RecordingSink(tmp_path)
    async with serving(sink) as port, RawClient(port) as client:
        client.send(post("Expect: 100-continue", "Content-Length: 3"))
        assert (await client.reply()).status == 100
        assert (await client.ask(b"abc")).body == b"abc"
        sink.hold = True
        client.send(HELLO + post("Expect: 100-Continue", "Content-Length: 3"))
        await eventually(lambda: sink.held)
        sink.finish_held()
        sink.hold = False
        assert [(await client.reply()).status for _ in range(2)] == [200, 100]
        assert (await client.ask(b"def")).body == b"def"


@on_both_loops
async def test_early_refusal_survives_a_client_that_goes_on_sending(tmp_path: Path) -> None:
    """The 413 is read although megabytes of body are still under way."""
    async with serving(RecordingSink(tmp_path)) as port, RawClient(port) as client:
        client.send(post("Content-Length: 50000000") + b"x" * 3_000_000)
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (413, "close")


@on_both_loops
async def test_head_is_answered_without_a_body(tmp_path: Path) -> None:
    async with serving(RecordingSink(tmp_path, replying(body=b"12345"))) as port, RawClient(port) as client:
        reply = await client.ask(get("Host: x", method="HEAD"), head=True)
        assert reply.headers["content-length"] == "5"
        assert (await client.ask(HELLO)).body == b"12345"


@on_both_loops
async def test_keep_alive_on_http_1_0(tmp_path: Path) -> None:
    async with serving(RecordingSink(tmp_path)) as port, RawClient(port) as client:
        assert (await client.ask(get("Connection: keep-alive", version="HTTP/1.0"))).headers[
            "connection"
        ] == "keep-alive"
        assert (await client.ask(get(version="HTTP/1.0"))).headers["connection"] == "close"
        assert await client.ended() == b""


OUTCOMES = [
    (Outcome(Result.TIMED_OUT), 408, b'{"error": "handler timed out"}', None),
    (Outcome(Result.NO_WORKER), 503, b"", "1"),
    (Outcome(Result.STOPPED), 503, b"", "1"),
    (Outcome(Result.WORKER_DIED), 502, b'{"error": "the worker died while it handled this request"}', None),
    (Outcome(Result.REPLIED, 42, "text/plain", [], b"x"), 500, None, None),
    (Outcome(Result.REPLIED, 101, "text/plain", [], b"x"), 500, None, None),
    (Outcome(Result.REPLIED, 204, "text/plain", [], b"x"), 204, b"", None),
    (Outcome(Result.REPLIED, 304, "text/plain", [], b"x"), 304, b"", None),
    (Outcome(Result.REPLIED, 500, "text/plain", [], b"Exception"), 500, b"Exception", None),
    (Outcome(Result.REPLIED, 599, "text/plain", [], b"odd"), 599, b"odd", None),
]


@pytest.mark.parametrize(("outcome", "status", "body", "retry_after"), OUTCOMES)
async def test_outcomes(
    outcome: Outcome, status: int, body: bytes | None, retry_after: str | None, tmp_path: Path
) -> None:
    async with serving(RecordingSink(tmp_path, lambda event: outcome)) as port, RawClient(port) as client:
        for _ in range(2):  # the second shows that the framing held
            reply = await client.ask(HELLO)
            assert reply.status == status
            assert body is None or reply.body == body
            assert reply.headers.get("retry-after") == retry_after
        assert ("content-length" in reply.headers) == (status not in (204, 304))


@on_both_loops
async def test_handler_cannot_corrupt_the_framing(tmp_path: Path) -> None:
    evil = [
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("Keep-Alive", "x"),
        ("Upgrade", "h2c"),
        ("Trailer", "X"),
        ("Date", "never"),
        ("Server", "other"),
        ("X-Split", "a\r\nContent-Length: 0"),
        ("X\r\nY", "a"),
        ("X-Nul", "a\0b"),
        ("Bad Name", "a"),
        ("", "a"),
        ("X-Surrogate", "\ud800"),
        ("X-Good", "grün"),
    ]
    sink = RecordingSink(tmp_path, replying(body=b"hello", headers=evil, content_type="text/a\r\nX-In: 1"))
    async with serving(sink) as port, RawClient(port) as client:
        for _ in range(2):
            reply = await client.ask(HELLO)
            assert reply.body == b"hello"
        assert set(reply.headers) == {"server", "date", "content-type", "content-length", "x-good"}
        assert reply.headers["server"] == "headrace"
        assert sink.counters["headers_refused"] == 2 * 6 + 1


@on_both_loops
async def test_logs_come_back_when_asked_for(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.answer = lambda event: Outcome(
        Result.REPLIED,
        200,
        "text/plain",
        [],
        b"",
        [{"message": event.path, "level": "info"}] if event.log_level else None,
    )
    async with serving(sink) as port, RawClient(port) as client:
        reply = await client.ask(get("Host: x", "x-nuclio-log-level: Info", target="/a"))
        assert json.loads(reply.headers["x-nuclio-logs"]) == [{"message": "/a", "level": "info"}]
        assert sink.events[0].log_level == "info"
        reply = await client.ask(get("Host: x", "X-Nuclio-Log-Level: debug", target="/" + "a" * 4096))
        assert "x-nuclio-logs" not in reply.headers
        assert "x-nuclio-logs" not in (await client.ask(get("Host: x", "X-Nuclio-Log-Level: loud"))).headers


@on_both_loops
async def test_health_asks_no_function(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    async with serving(sink) as port, RawClient(port) as client:
        assert (await client.ask(get("Host: x", target="/__internal/health"))).status == 200
        assert not sink.events
        assert (await client.ask(HELLO)).status == 200


@on_both_loops
async def test_cors(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    cors = Cors(enabled=True, allow_origins=("http://a",), allow_credentials=True)
    async with serving(sink, cors=cors) as port, RawClient(port) as client:
        ask = get("Host: x", "Origin: http://a", "Access-Control-Request-Method: POST", method="OPTIONS")
        reply = await client.ask(ask)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "http://a"
        assert reply.headers["access-control-max-age"] == "5"
        assert (await client.ask(ask.replace(b"//a", b"//b"))).status == 400
        assert (await client.ask(get("Host: x", "Origin: http://b"))).status == 403
        assert not sink.events
        reply = await client.ask(get("Host: x", "Origin: http://a"))
        assert (reply.status, reply.headers["access-control-allow-credentials"]) == (200, "true")
        assert (await client.ask(HELLO)).headers["vary"] == "Origin"
        assert len(sink.events) == 2


@on_both_loops
async def test_cloud_events(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    text = json.dumps({"specversion": "1.0", "id": "7", "source": "/s", "type": "t", "data": {"a": 1}}).encode()
    async with serving(sink) as port, RawClient(port) as client:
        length = f"Content-Length: {len(text)}"
        assert (await client.ask(post("Content-Type: application/cloudevents+json", length, body=text))).status == 200
        assert (sink.events[0].id, sink.events[0].source, sink.events[0].json_body) == ("7", "/s", True)
        assert sink.events[0].body == b'{"a": 1}'
        binary = ["ce-specversion: 1.0", "CE-Id: 8", "ce-source: /s%20t", "ce-type: t"]
        assert (await client.ask(get("Host: x", *binary))).status == 200
        assert (sink.events[1].id, sink.events[1].source) == ("8", "/s t")
        batch = post("Content-Type: application/cloudevents-batch+json", "Content-Length: 2", body=b"[]")
        assert (await client.ask(batch)).status == 415
    async with serving(RecordingSink(tmp_path)) as port, RawClient(port) as client:
        reply = await client.ask(get("Host: x", "ce-specversion: 1.0", "ce-id: 8"))
        assert (reply.status, json.loads(reply.body)) == (400, {"error": "the CloudEvent has no `source`"})


@on_both_loops
async def test_file_as_body(tmp_path: Path) -> None:
    """Streamed, in its turn, whatever its size; missing 404, unreadable 500; deleted when asked."""
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 8192)
    sink = RecordingSink(tmp_path)

    def answer(event: Event) -> Outcome:
        headers = [("X-nuclio-filestream-path", str(tmp_path / str(event.path)[1:]))]
        if event.fields == b"delete":
            headers.append(("X-nuclio-filestream-delete-after-send", "1"))
        return Outcome(Result.REPLIED, 200, "a/b", headers, b"ignored")

    sink.answer = answer
    async with serving(sink) as port, RawClient(port) as client:
        client.send(get("Host: x", target="/large") + get("Host: x", target="/none") + get("Host: x", target="/."))
        reply = await client.reply()
        assert (reply.status, reply.headers["content-type"], len(reply.body)) == (200, "a/b", 2 << 20)
        assert reply.body == large.read_bytes()
        assert "x-nuclio-filestream-path" not in reply.headers
        assert [(await client.reply()).status for _ in range(2)] == [404, 500]
        reply = await client.ask(get("Host: x", target="/large", method="HEAD"), head=True)
        assert reply.headers["content-length"] == str(2 << 20)
        assert (await client.ask(get("Host: x", target="/large?delete"))).status == 200
        await eventually(lambda: not large.exists())


@on_both_loops
async def test_client_that_does_not_read_costs_no_memory(tmp_path: Path) -> None:
    """Its requests stop being taken; it is cut off after `requestTimeout`."""
    sink = RecordingSink(tmp_path, replying(body=b"x" * 1_000_000))
    async with serving(sink, request_timeout=0.5) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(HELLO * 500)
            await eventually(lambda: sink.counters["clients_stuck"] == 1)
    assert len(sink.events) < 50


@on_both_loops
async def test_slow_and_idle_clients_are_ended(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    async with (
        serving(sink, request_timeout=0.2, idle_timeout=0.4) as port,
        RawClient(port) as head,
        RawClient(port) as body,
        RawClient(port) as idle,
        RawClient(port) as silent,
    ):
        head.send(b"GET / HTTP/1.1\r\nHo")
        body.send(post("Content-Length: 1000", body=b"abc"))
        await idle.ask(HELLO)
        assert (await head.reply()).status == 408
        assert (await body.reply()).status == 408
        assert await idle.ended() == b""
        assert await silent.ended() == b""


@on_both_loops
async def test_waiting_for_the_function_is_not_idling(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.hold = True
    async with serving(sink, request_timeout=0.05, idle_timeout=0.05) as port, RawClient(port) as client:
        client.send(HELLO)
        await eventually(lambda: sink.held)
        async with RawClient(port) as idle:  # ended by the sweeps that the first one has to survive
            assert await idle.ended() == b""
        sink.finish_held()
        assert (await client.reply()).status == 200


@on_both_loops
async def test_connections_are_bounded(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    async with serving(sink, max_connections=2) as port:
        async with RawClient(port) as first, RawClient(port) as second:
            await first.ask(HELLO)
            await second.ask(HELLO)
            async with RawClient(port) as third:
                reply = await third.reply()
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                assert await third.ended() == b""
            assert (await first.ask(HELLO)).status == 200
        async with RawClient(port) as fourth:
            await eventually(lambda: sink.counters["connections_refused"] == 1)
            assert (await fourth.ask(HELLO)).status == 200


@on_both_loops
async def test_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.hold = True
    async with serving(sink) as port:
        async with RawClient(port) as client:
            client.send(HELLO)
            await eventually(lambda: sink.held)
            reset = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await eventually(lambda: sink.counters["clients_gone"] == 1)
        sink.finish_held()
        sink.hold = False
        async with RawClient(port) as client:
            assert (await client.ask(HELLO)).status == 200


@on_both_loops
async def test_stopping_answers_what_was_read(tmp_path: Path) -> None:
    """In hand: answered. Kept alive: one more request, then goodbye. New connections: refused at once."""
    sink = RecordingSink(tmp_path)
    sink.hold = True
    task = asyncio.create_task(run(HttpSpec(kind="http"), sink))
    await eventually(lambda: sink.address)
    port = int(sink.address.rpartition(":")[2])
    async with RawClient(port) as busy, RawClient(port) as kept, RawClient(port) as half:
        busy.send(HELLO)
        half.send(post("Content-Length: 3", body=b"a"))
        await eventually(lambda: sink.held)
        kept.send(b"\r\n")
        task.cancel()
        await eventually(lambda: sink.released)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        kept.send(HELLO)
        half.send(b"bc")
        await eventually(lambda: len(sink.held) == 3)
        sink.finish_held()
        for client in (busy, kept, half):
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await client.ended() == b""
    with pytest.raises(asyncio.CancelledError):
        await task


@on_both_loops
async def test_second_cancel_cuts_off(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.hold = True
    task = asyncio.create_task(run(HttpSpec(kind="http"), sink))
    await eventually(lambda: sink.address)
    async with RawClient(int(sink.address.rpartition(":")[2])) as client:
        client.send(HELLO)
        await eventually(lambda: sink.held)
        task.cancel()
        await eventually(lambda: sink.released)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.ended() == b""
    sink.finish_held()


@on_both_loops
async def test_two_listeners_share_inherited_sockets(tmp_path: Path) -> None:
    """Old and new version accept from one queue; the old one's end neither closes nor shuts down the sockets."""
    path = tmp_path / "s"
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    port = tcp.getsockname()[1]
    old, new = RecordingSink(tmp_path), RecordingSink(tmp_path)
    old.listeners = new.listeners = (tcp, unix)
    with tcp, unix:
        async with serving(new):
            async with serving(old) as shown:
                assert shown == port
                async with RawClient(port) as first, RawClient(str(path)) as second:
                    assert (await first.ask(HELLO)).status == (await second.ask(HELLO)).status == 200
            for address in (port, str(path)) * 5:
                async with RawClient(address) as client:
                    assert (await client.ask(HELLO)).status == 200
        assert path.exists()
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


CHILD = """
import asyncio, pathlib, socket, sys, uvloop
from agent.triggers.http.spec import HttpSpec
from agent.triggers.http.trigger import run
from tests.support.recording_sink import RecordingSink
async def main():
    sink = RecordingSink(pathlib.Path("."))
    sink.listeners = (socket.socket(fileno=int(sys.argv[2])),)
    task = asyncio.create_task(run(HttpSpec(kind="http"), sink))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    task.cancel()
    await asyncio.wait([task])
(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


@on_both_loops
async def test_inherited_unix_socket_is_shown_as_it_was_written(tmp_path: Path) -> None:
    """Its own name for the kernel is a shorter one."""
    path = tmp_path / "s"
    with open_listener(Address(path=str(path))) as inherited:
        sink = RecordingSink(tmp_path)
        sink.listeners = [inherited]
        async with serving(sink, socket=str(path)):
            assert sink.address == f"unix:{path}"


@on_both_loops
async def test_unix_socket_of_our_own(tmp_path: Path) -> None:
    """With its mode, instead of TCP; a dead one's path is taken over, and removed at the end."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    sink = RecordingSink(tmp_path)
    async with serving(sink, socket=str(path), socket_mode="0600"):
        assert sink.address == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        async with RawClient(str(path)) as client:
            assert (await client.ask(HELLO)).status == 200
        with pytest.raises(SourceUnavailable, match="is taken by another process"):
            await run(HttpSpec(kind="http", socket=str(path)), RecordingSink(tmp_path))
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(SourceUnavailable, match="is not a socket"):
        await run(HttpSpec(kind="http", socket=str(path)), RecordingSink(tmp_path))
    assert path.read_text() == "precious"


async def test_taken_port_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SourceUnavailable) as caught:
            await run(HttpSpec(kind="http", port=port), RecordingSink(tmp_path))
    assert f"127.0.0.1:{port}: it is taken by process {os.getpid()} (" in str(caught.value)
    assert "python" in str(caught.value)
    assert "give another `port`" in str(caught.value)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, server (127.0.0.1) and client certificates with their keys."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls_and_client_certificates(loop: str, certificates: Path, tmp_path: Path) -> None:
    async def main() -> None:
        tls = Tls(
            cert=str(certificates / "server.pem"),
            key=str(certificates / "server.key"),
            client_ca=str(certificates / "ca.pem"),
            minimum_version="1.3",
        )
        trusted = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        trusted.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        sink = RecordingSink(tmp_path, replying(body=b"x" * 300_000))
        async with serving(sink, tls=tls) as port:
            assert sink.address == f"https://127.0.0.1:{port}"
            async with RawClient(port, ssl=trusted) as client:
                for _ in range(3):
                    assert len((await client.ask(HELLO)).body) == 300_000
                assert (await client.ask(get("X: a"))).status == 400
                assert await client.ended() == b""
            stranger = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                async with RawClient(port, ssl=stranger) as client:
                    await client.ask(HELLO)
            async with RawClient(port) as plain:
                plain.send(HELLO)
                await plain.ended()
        assert len(sink.events) == 3

    (uvloop.run if loop == "uvloop" else asyncio.run)(main())


async def test_tls_errors_name_the_file(certificates: Path, tmp_path: Path) -> None:
    pem, key = str(certificates / "server.pem"), str(certificates / "server.key")
    for tls, name in (
        (Tls(cert="/none.pem", key=key), "/none.pem"),
        (Tls(cert=pem, key=str(certificates / "client.key")), "client.key"),
        (Tls(cert=pem, key=key, client_ca=key), "server.key"),
    ):
        with pytest.raises(SpecError, match=name):
            await run(HttpSpec(kind="http", tls=tls), RecordingSink(tmp_path))
