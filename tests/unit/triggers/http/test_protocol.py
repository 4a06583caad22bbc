"""A connection fed by hand: a transport that records, a sink that holds, no socket."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from loguru import logger

from agent.model.event import Event, Outcome, Result
from agent.triggers.http.listener import Listener
from agent.triggers.http.protocol import PIPELINE, Connection
from agent.triggers.http.spec import HttpSpec
from tests.support.http_corpus import get, post

HELLO = get("Host: x")


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading, self.open, self.half_closed = True, True, False
        self.unread = 0

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return not self.open

    def close(self) -> None:
        self.open = False

    abort = close

    def get_write_buffer_size(self) -> int:
        return self.unread

    def taken(self) -> list[bytes]:
        """The first words of what was written, and forget it."""
        lines = [line for line in self.written.split(b"\r\n") if b"HTTP/1.1 " in line]
        self.written = b""
        return [line[line.index(b"HTTP/1.1 ") + 9 :][:3] for line in lines]


class Sink:
    name, log = "t", logger

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.held: list[Callable[[Outcome], None]] = []
        self.counters: Counter[str] = Counter()

    def dispatch(self, event: Event, done: Callable[[Outcome], None]) -> None:
        self.events.append(event)
        self.held.append(done)

    def count(self, what: str, n: int = 1) -> None:
        self.counters[what] += n

    def answer(self, place: int = 0, body: bytes = b"ok", status: int = 200) -> None:
        self.held.pop(place)(Outcome(Result.REPLIED, status, "text/plain", [], body))


class Fixture:
    def __init__(self, **keys: Any) -> None:
        self.sink = Sink()
        self.listener = Listener(HttpSpec(kind="http", **keys), self.sink)  # type: ignore[arg-type]
        self.transport, self.connection = self.connect()
        self.feed = self.connection.data_received

    def connect(self) -> tuple[Transport, Connection]:
        connection, transport = Connection(self.listener), Transport()
        connection.connection_made(transport)
        return transport, connection

    def sweep(self, ticks: int) -> None:
        for _ in range(ticks):
            self.listener.tick += 1
            self.connection.sweep(self.listener.tick)


async def test_replies_keep_their_order() -> None:
    f = Fixture()
    f.feed(HELLO * 3)
    f.sink.answer(2, status=203)
    f.sink.answer(1, status=202)
    assert f.transport.taken() == []
    f.sink.answer(0, status=201)
    assert f.transport.taken() == [b"201", b"202", b"203"]


async def test_requests_under_way_are_bounded_and_reading_pauses() -> None:
    f = Fixture()
    f.feed(HELLO * 500)
    assert len(f.sink.held) == PIPELINE
    assert not f.transport.reading
    answered = 0
    while f.sink.held:
        f.sink.answer()
        answered += 1
        assert len(f.sink.held) <= PIPELINE
    assert (answered, len(f.transport.taken())) == (500, 500)
    assert f.transport.reading


async def test_nothing_is_started_for_a_client_that_does_not_read() -> None:
    f = Fixture()
    f.connection.pause_writing()
    assert not f.transport.reading
    f.feed(HELLO * 3)
    assert not f.sink.events
    f.connection.resume_writing()
    assert len(f.sink.events) == 3
    assert f.transport.reading


async def test_large_reply_narrows_the_pipeline() -> None:
    f = Fixture()
    f.feed(HELLO)
    f.sink.answer(body=b"x" * 100_000)
    f.feed(HELLO * 5)
    assert len(f.sink.held) == 1


async def test_client_that_takes_nothing_is_cut_off_and_one_that_does_is_not() -> None:
    f = Fixture(request_timeout=10.0)
    f.transport.unread = 100_000
    f.connection.pause_writing()
    for left in range(99_999, 99_900, -1):
        f.transport.unread = left
        f.sweep(5)
    assert f.transport.open
    f.sweep(11)
    assert not f.transport.open
    assert f.sink.counters["clients_stuck"] == 1


async def test_error_waits_for_the_replies_before_it() -> None:
    f = Fixture()
    f.feed(HELLO + b"nonsense\r\n\r\n" + HELLO)
    f.feed(HELLO)
    assert f.transport.taken() == []
    f.sink.answer()
    assert f.transport.taken() == [b"200", b"400"]
    assert f.transport.half_closed
    assert len(f.sink.events) == 1


async def test_our_half_is_closed_first_then_all() -> None:
    f = Fixture()
    f.feed(b"nonsense\r\n\r\n")
    assert f.transport.half_closed
    assert f.transport.open
    f.feed(b"more" * 10_000)
    f.sweep(2)
    assert not f.transport.open


async def test_continue_is_said_in_its_turn_and_not_after_the_body() -> None:
    expecting = post("Expect: 100-continue", "Content-Length: 3")
    f = Fixture()
    f.feed(HELLO + expecting)
    assert f.transport.taken() == []
    f.sink.answer()
    assert f.transport.taken() == [b"200", b"100"]
    f.feed(b"abc")
    f.sink.answer()
    f.feed(HELLO + expecting + b"abc")
    f.sink.answer()
    f.sink.answer()
    assert f.transport.taken() == [b"200"] * 3


async def test_slow_head_and_slow_body_get_408() -> None:
    f = Fixture(request_timeout=10.0)
    f.feed(b"GET / HT")
    f.sweep(5)
    f.feed(b"TP/1.1\r\n")
    f.sweep(5)
    assert f.transport.taken() == [b"408"]

    f = Fixture(request_timeout=10.0)
    f.feed(post("Content-Length: 100000"))
    for _ in range(20):
        f.feed(b"x" * 600)
        f.sweep(5)
    assert f.transport.taken() == []
    for _ in range(4):
        f.feed(b"x" * 40)
        f.sweep(5)
    assert f.transport.taken() == [b"408"]
    assert not f.sink.events


async def test_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    f = Fixture(idle_timeout=20.0)
    f.feed(HELLO)
    f.sweep(100)
    assert f.transport.open
    f.sink.answer()
    f.sweep(19)
    assert f.transport.open
    f.sweep(2)
    assert not f.transport.open


async def test_no_time_out_when_the_spec_says_so() -> None:
    f = Fixture(idle_timeout=0.0, request_timeout=0.0)
    f.sweep(10_000)
    f.feed(b"GET")
    f.sweep(10_000)
    assert f.transport.open


async def test_draining_says_goodbye_with_the_last_reply() -> None:
    f = Fixture()
    f.feed(HELLO * 2)
    f.listener.draining = True
    f.sink.answer()
    assert b"Connection: close" not in f.transport.written
    f.sink.answer()
    assert f.transport.written.count(b"Connection: close") == 1
    assert f.transport.half_closed


async def test_draining_waits_for_a_request_that_has_begun() -> None:
    f = Fixture()
    f.feed(HELLO + HELLO[:5])
    f.feed(HELLO[5:9])
    f.listener.draining = True
    f.sink.answer()
    assert b"Connection: close" not in f.transport.written
    f.connection.end_if_idle()
    assert f.transport.open
    f.feed(HELLO[9:])
    f.sink.answer()
    assert b"Connection: close" in f.transport.written


async def test_lost_connection_leaves_nothing_behind() -> None:
    f = Fixture()
    f.feed(HELLO * 3)
    f.connection.connection_lost(None)
    for _ in range(3):
        f.sink.answer()
    assert f.transport.taken() == []
    assert not f.listener.connections
    assert f.sink.counters["clients_gone"] == 1


async def test_head_limit_is_exact() -> None:
    room = 1024 - len(get("Host: x", "X: "))
    for extra, status in ((0, []), (20, [b"431"])):
        f = Fixture(read_buffer_size=1024)
        f.feed(get("Host: x", "X: " + "a" * (room + extra)))
        assert f.transport.taken() == status


async def test_body_limit_is_exact() -> None:
    for length, events in ((10, 1), (11, 0)):
        f = Fixture(max_request_body_size=10)
        f.feed(post(f"Content-Length: {length}", body=b"x" * length))
        assert len(f.sink.events) == events
        f = Fixture(max_request_body_size=10)
        f.feed(post("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (length, b"x" * length)))
        assert len(f.sink.events) == events


async def test_where_the_packets_are_cut_makes_no_difference() -> None:
    """Random cuts through a stream of every kind of request give the same events and replies."""
    stream = (
        HELLO
        + post("Content-Length: 5", body=b"first")
        + get("Host: x", target="/a?b=c", method="HEAD")
        + post("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n")
        + get("Host: x", "Connection: Upgrade", "Upgrade: h2c")
        + post("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 6", body=b"second")
        + post("Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", body=b"5\r\nthird\r\n0\r\n\r\n")
        + post("Content-Length: 9000", body=b"x" * 9000)
        + get("Connection: keep-alive", version="HTTP/1.0")
        + get("Host: x", target="/__internal/health")
        + post("Content-Length: 4", "Connection: close", body=b"last")
    )

    def run(cuts: list[int]) -> tuple[list[Any], list[bytes]]:
        f = Fixture()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            f.feed(stream[start:end])
            while f.sink.held:
                f.sink.answer()
        seen = [(e.method, e.path, e.fields, bytes(e.body), list(e.headers)) for e in f.sink.events]
        return seen, f.transport.taken()

    expected = run([])
    assert [body for _, _, _, body, _ in expected[0]][-1] == b"last"
    assert not [headers for *_, headers in expected[0] if (b"T", b"1") in headers]  # trailers are nobody's headers
    assert expected[1] == [b"200"] * 11
    choose = random.Random(1)
    for _ in range(200):
        assert run(sorted(choose.sample(range(1, len(stream)), choose.randrange(1, 40)))) == expected


async def test_no_timer_without_connections() -> None:
    """Idle costs nothing: the sweep stops with the last connection and starts with the next."""
    f = Fixture(idle_timeout=0.04)
    assert f.listener._timer is not None
    f.connection.connection_lost(None)
    f.listener._timer.cancel()
    f.listener._sweep()
    assert f.listener._timer is None
    f.connect()
    assert f.listener._timer is not None
    f.listener.close()
    assert f.listener._timer is None
