"""The loops around asynchronous handlers, on a fake channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nuclio_sdk._worker import coroutines, plain
from nuclio_sdk._worker.lane import ViewKept

from tests.support.eventually import eventually
from tests.support.fake_channel import FakeChannel, RingClosed, protocol

MakeLane = Callable[..., Any]


async def serve(channel: FakeChannel, lane: Any, in_flight: int = 1) -> None:
    """All that was put, then stop."""
    channel.put_control(protocol.STOP)
    await coroutines.serve(lane, in_flight)


@pytest.mark.parametrize("in_flight", [1, 4])
async def test_events_are_answered(channel: FakeChannel, lane: MakeLane, in_flight: int) -> None:
    async def handler(context: Any, event: Any) -> Any:
        await asyncio.sleep(0)
        return event.body

    for index in range(40):
        channel.put(b"%d" % index)
    await serve(channel, lane(handler), in_flight)
    assert [(reply[0], reply[4]) for reply in channel.replies] == [(index + 1, b"%d" % index) for index in range(40)]


@pytest.mark.parametrize("in_flight", [1, 4])
async def test_a_handler_that_is_plain_after_all(channel: FakeChannel, lane: MakeLane, in_flight: int) -> None:
    channel.put(b"x")
    await serve(channel, lane(lambda context, event: "plain"), in_flight)
    assert channel.replies[0][4] == "plain"


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError, KeyboardInterrupt])
async def test_an_error_is_a_500(
    channel: FakeChannel, lane: MakeLane, in_flight: int, error: type[BaseException]
) -> None:
    async def handler(context: Any, event: Any) -> str:
        await asyncio.sleep(0)
        if event.body == b"bad":
            raise error("no")
        return "ok"

    channel.put(b"bad")
    channel.put(b"good")
    await serve(channel, lane(handler), in_flight)
    assert {reply[0]: reply[1] for reply in channel.replies} == {1: 500, 2: 200}


async def test_sleeps_until_rung(channel: FakeChannel, lane: MakeLane) -> None:
    async def handler(context: Any, event: Any) -> str:
        return "x"

    task = asyncio.ensure_future(coroutines.serve(lane(handler), 1))
    for count in (1, 2, 3):
        channel.put()
        await eventually(lambda count=count: len(channel.replies) == count)
    channel.put_control(protocol.STOP)
    await task


async def test_one_at_a_time_means_one(channel: FakeChannel, lane: MakeLane) -> None:
    running = most = 0

    async def handler(context: Any, event: Any) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return ""

    for _ in range(5):
        channel.put()
    await serve(channel, lane(handler))
    assert most == 1


async def test_in_flight_is_the_bound_and_is_reached(channel: FakeChannel, lane: MakeLane) -> None:
    running = most = 0
    gate = asyncio.Event()

    async def handler(context: Any, event: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return event.body

    for index in range(9):
        channel.put(b"%d" % index)
    task = asyncio.ensure_future(serve(channel, lane(handler), 3))
    await eventually(lambda: running == 3)
    gate.set()
    await task
    assert most == 3 and sorted(reply[4] for reply in channel.replies) == [b"%d" % index for index in range(9)]


async def test_background_tasks_go_on_between_events(channel: FakeChannel, lane: MakeLane) -> None:
    turns = 0
    tasks = []

    async def background() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def handler(context: Any, event: Any) -> str:  # never gives the loop a turn itself
        if not tasks:
            tasks.append(asyncio.ensure_future(background()))
        return ""

    for _ in range(coroutines.EVENTS_A_TURN * 5):
        channel.put()
    await serve(channel, lane(handler))
    tasks[0].cancel()
    assert turns >= 4


async def test_logs_carry_the_event_of_their_task(channel: FakeChannel, lane: MakeLane) -> None:
    async def handler(context: Any, event: Any) -> str:
        for _ in range(3):
            context.logger.info(event.body.decode())
            await asyncio.sleep(0)
        return ""

    channel.put(b"1")
    channel.put(b"2")
    await serve(channel, lane(handler), 2)
    assert sorted((id, message) for id, _, message, _ in channel.logs) == [(1, "1")] * 3 + [(2, "2")] * 3


@pytest.mark.parametrize("in_flight", [1, 2])
async def test_the_processor_goes_away(channel: FakeChannel, lane: MakeLane, in_flight: int) -> None:
    async def handler(context: Any, event: Any) -> str:
        return ""

    channel.put()
    channel.hang_up()
    with pytest.raises(RingClosed):
        await coroutines.serve(lane(handler), in_flight)
    assert len(channel.replies) == 1


async def test_the_processor_goes_away_with_events_in_flight(channel: FakeChannel, lane: MakeLane) -> None:
    cancelled = []

    async def handler(context: Any, event: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(event.id)
            raise
        return ""

    channel.put()
    task = asyncio.ensure_future(coroutines.serve(lane(handler), 4))
    await asyncio.sleep(0)
    channel.hang_up()
    with pytest.raises(RingClosed):
        await task
    assert len(cancelled) == 1


async def test_stop_waits_for_what_is_in_flight(channel: FakeChannel, lane: MakeLane) -> None:
    gate = asyncio.Event()

    async def handler(context: Any, event: Any) -> str:
        await gate.wait()
        return "late"

    made = lane(handler)
    made.context.platform.set_termination_callback(gate.set)
    channel.put()
    await serve(channel, made, 2)
    assert channel.replies[0][4] == "late"


async def test_drain(channel: FakeChannel, lane: MakeLane) -> None:
    seen = []

    async def callback() -> None:
        await asyncio.sleep(0)
        seen.append(1)

    made = lane(lambda context, event: "")
    made.context.platform.set_drain_callback(callback)
    channel.put_control(protocol.DRAIN)
    await serve(channel, made)
    assert seen == [1] and channel.controls == [(protocol.DRAINED, b"")]


async def test_batch(channel: FakeChannel, lane: MakeLane) -> None:
    async def handler(context: Any, events: Any) -> Any:
        await asyncio.sleep(0)
        return [context.Response(body=event.body, event_id=event.id) for event in events]

    channel.put(b"a", protocol.BATCH | protocol.MORE)
    channel.put(b"b", protocol.BATCH)
    await serve(channel, lane(handler))
    assert [(reply[0], reply[4]) for reply in channel.replies] == [(1, b"a"), (2, b"b")]


async def test_kept_events_and_views(channel: FakeChannel, lane: MakeLane) -> None:
    kept: list[Any] = []

    async def handler(context: Any, event: Any) -> str:
        kept.append(event if event.body_view == b"event" else event.body_view)
        return ""

    channel.put(b"event")
    channel.put(b"view")
    with pytest.raises(ViewKept):
        await serve(channel, lane(handler))
    assert kept[0].body == b"event"
    kept.clear()


async def test_going_on_from_the_plain_loop(channel: FakeChannel, lane: MakeLane) -> None:
    async def later(body: bytes) -> bytes:
        await asyncio.sleep(0)
        return body

    made = lane(lambda context, event: later(event.body))
    channel.put(b"1")
    channel.put(b"2")
    channel.put_control(protocol.STOP)
    await coroutines.serve(made, 1, plain.serve(made))
    assert [reply[4] for reply in channel.replies] == [b"1", b"2"]
