"""The loop around plain handlers, on a fake channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from nuclio_sdk import Response
from nuclio_sdk._worker import plain
from nuclio_sdk._worker.lane import ViewKept

from tests.support.fake_channel import FakeChannel, RingClosed, protocol

MakeLane = Callable[..., Any]


def serve(lane: Any) -> Any:
    """Until the fake channel is empty, or told to stop."""
    try:
        return plain.serve(lane)
    except RingClosed:
        return "closed"


def test_events_are_answered_in_order(channel: FakeChannel, lane: MakeLane) -> None:
    for body in (b"a", b"b"):
        channel.put(body)
    assert serve(lane(lambda context, event: event.body.decode())) == "closed"
    assert channel.replies == [(1, 200, "text/plain", None, "a"), (2, 200, "text/plain", None, "b")]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_an_error_is_a_500_and_the_worker_goes_on(channel: FakeChannel, lane: MakeLane, error: BaseException) -> None:
    def handler(context: Any, event: Any) -> str:
        if event.body == b"bad":
            raise error
        return "ok"

    channel.put(b"bad")
    channel.put(b"good")
    serve(lane(handler))
    assert [reply[1] for reply in channel.replies] == [500, 200]
    assert str(channel.replies[0][4]).startswith("Exception caught in handler - ")
    [(id, level, message, _)] = channel.logs
    assert (id, level) == (1, 3) and "in handler" in message and "_worker" not in message


def test_non_utf8_header_fails_only_its_event(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put(headers=[("x", b"\xff")])
    channel.put(headers=[("x", "ok")])
    serve(lane(lambda context, event: event.headers["X"]))
    assert [reply[1] for reply in channel.replies] == [500, 200]


def test_a_reply_that_cannot_be_sent_is_a_500(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put()
    channel.refuse = [ValueError("too big")]
    serve(lane(lambda context, event: "x"))
    [(_, status, _, _, body)] = channel.replies
    assert status == 500 and "too big" in body


def test_even_the_error_may_not_fit(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put()
    channel.refuse = [ValueError("no room"), ValueError("no room")]
    serve(lane(lambda context, event: "x"))
    assert channel.replies[0][1] == 500 and "no room" in channel.replies[0][4]


def test_a_kept_event_keeps_its_body(channel: FakeChannel, lane: MakeLane) -> None:
    kept = []

    def handler(context: Any, event: Any) -> str:
        kept.append(event)
        return ""

    channel.put(b"first")
    channel.put(b"second")
    serve(lane(handler))
    assert [event.body for event in kept] == [b"first", b"second"]


def test_the_body_of_an_event_that_nobody_keeps_is_not_copied(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put(b"x")
    serve(lane(lambda context, event: bytes(event.body_view)))
    assert channel.bodies_copied == 0 and channel.replies[0][4] == b"x"


def test_a_view_may_be_the_result(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put(b"abc")
    channel.put(b"next")
    serve(lane(lambda context, event: event.body_view[1:]))
    assert [reply[4] for reply in channel.replies] == [b"bc", b"ext"]


def test_a_view_in_a_cycle_is_collected(channel: FakeChannel, lane: MakeLane) -> None:
    def handler(context: Any, event: Any) -> str:
        cycle: list[Any] = [event.body_view]
        cycle.append(cycle)
        return ""

    channel.put(b"abc")
    channel.put(b"next")
    assert serve(lane(handler)) == "closed" and len(channel.replies) == 2


def test_a_kept_view_ends_the_worker_after_the_reply(channel: FakeChannel, lane: MakeLane) -> None:
    kept = []

    def handler(context: Any, event: Any) -> str:
        kept.append(event.body_view)
        return "ok"

    channel.put(b"abc")
    with pytest.raises(ViewKept, match="body_view"):
        plain.serve(lane(handler))
    assert channel.replies[0][4] == "ok"
    kept.clear()


def test_logs_carry_the_event_in_hand(channel: FakeChannel, lane: MakeLane) -> None:
    def handler(context: Any, event: Any) -> str:
        context.logger.info_with("seen %s", "it", size=event.size)
        return ""

    made = lane(handler)
    made.context.logger.bind(worker_id="0")
    channel.put(b"abc")
    serve(made)
    made.context.logger.warn("between")
    assert channel.logs[0][:3] == (1, 1, "seen it")
    assert json.loads(channel.logs[0][3]) == {"size": 3, "worker_id": "0"}
    assert channel.logs[1][:3] == (0, 2, "between")


def test_stop_leaves_later_events(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put()
    channel.put_control(protocol.STOP)
    channel.put()
    assert serve(lane(lambda context, event: "")) is None
    assert len(channel.replies) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_drain_runs_the_callback_first(channel: FakeChannel, lane: MakeLane, is_async: bool) -> None:
    seen = []

    async def drain_async() -> None:
        await asyncio.sleep(0)
        seen.append(len(channel.controls))

    made = lane(lambda context, event: "")
    made.context.platform.set_drain_callback(drain_async if is_async else lambda: seen.append(len(channel.controls)))
    channel.put_control(protocol.DRAIN)
    channel.put()
    serve(made)
    assert seen == [0] and channel.controls == [(protocol.DRAINED, b"")] and len(channel.replies) == 1


def test_a_callback_that_raises_is_logged(channel: FakeChannel, lane: MakeLane) -> None:
    made = lane(lambda context, event: "")
    made.context.platform.set_termination_callback(lambda: 1 / 0)
    plain.terminate(made)
    assert "termination callback" in channel.logs[0][2] and "ZeroDivisionError" in channel.logs[0][2]


def test_unknown_control_records_are_ignored(channel: FakeChannel, lane: MakeLane) -> None:
    channel.put_control(99)
    channel.put()
    serve(lane(lambda context, event: ""))
    assert len(channel.replies) == 1


def batch(channel: FakeChannel, *bodies: bytes) -> None:
    for index, body in enumerate(bodies):
        more = protocol.MORE if index + 1 < len(bodies) else 0
        channel.put(body, protocol.BATCH | more)


def test_batch_replies_are_matched_by_event_id(channel: FakeChannel, lane: MakeLane) -> None:
    def handler(context: Any, events: Any) -> Any:
        return [Response(body=event.body, event_id=event.id) for event in reversed(events)]

    batch(channel, b"a", b"b", b"c")
    channel.put(b"single", protocol.BATCH)
    serve(lane(handler))
    assert [(reply[0], reply[4]) for reply in channel.replies] == [(1, b"a"), (2, b"b"), (3, b"c"), (4, b"single")]


def test_batch_replies_without_id_are_dropped(channel: FakeChannel, lane: MakeLane) -> None:
    def handler(context: Any, events: Any) -> Any:
        return [Response(body="a", event_id=events[0].id), Response(body="b"), Response(body="c", event_id=0), "d"]  # type: ignore[arg-type]

    batch(channel, b"a", b"b")
    serve(lane(handler))
    assert [reply[1] for reply in channel.replies] == [200, 500]
    assert "no reply with event_id" in channel.replies[1][4]
    assert "3 of the batch's replies" in channel.logs[0][2]


def test_a_batch_that_raises_or_returns_one_reply(channel: FakeChannel, lane: MakeLane) -> None:
    batch(channel, b"a", b"b")
    serve(lane(lambda context, events: 1 / 0))
    assert [reply[1] for reply in channel.replies] == [500, 500]
    batch(channel, b"a", b"b")
    serve(lane(lambda context, events: (202, str(len(events)))))
    assert [(reply[1], reply[4]) for reply in channel.replies[2:]] == [(202, "2"), (202, "2")]


def test_an_asynchronous_handler_shows_itself(channel: FakeChannel, lane: MakeLane) -> None:
    async def answer() -> str:
        return "later"

    channel.put()
    id, event, awaitable = serve(lane(lambda context, event: answer()))
    assert id == 1 and event.size == 0
    awaitable.close()
