"""The loops around asynchronous handlers, on an asyncio event loop.

Flow: as in `plain`, but asleep in the event loop, woken by the channel's doorbell.
Promise: with one event in flight the handler is awaited in the main task, no task an event; tasks that a handler
left behind go on between events: the event loop gets a turn at least every 16 events or every millisecond. With several
in flight each event is a task, never more than the given number; the body is copied and the record given back at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .lane import Lane
from .output import event_of_context

if TYPE_CHECKING:
    from .plain import Pending

EVENTS_A_TURN = 16
TURN_S = 0.001


class Doorbell:
    """Lets the event loop sleep until the processor rings."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._closed: BaseException | None = None
        self._loop.add_reader(lane.channel.fd, self._rang)

    def close(self) -> None:
        self._loop.remove_reader(self._lane.channel.fd)

    def fail(self, error: BaseException) -> None:
        """The channel is of no use: `rung` raises `error` from now on."""
        self._closed = error
        self.close()
        self._wake()

    async def rung(self) -> None:
        """Returns when there may be a record. Raises RingClosed when the processor is gone."""
        if self._closed is not None:
            raise self._closed
        if not self._lane.channel.sleep():
            return
        self._waiter = self._loop.create_future()
        await self._waiter
        if self._closed is not None:
            raise self._closed

    def _rang(self) -> None:
        try:
            self._lane.channel.awake()
        except self._lane.fatal as error:
            self.fail(error)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Turns:
    """Counts events, and gives the event loop its turn."""

    def __init__(self) -> None:
        self._events = 0
        self._since = time.monotonic()

    async def next(self) -> None:
        self._events += 1
        if self._events >= EVENTS_A_TURN or time.monotonic() - self._since > TURN_S:
            await asyncio.sleep(0)
            self._events = 0
            self._since = time.monotonic()


async def serve(lane: Lane, in_flight: int, pending: Pending | None = None) -> None:
    """Serve until told to stop. Raises RingClosed when the processor is gone."""
    bell = Doorbell(lane)
    set_event = event_of_context(lane.output)
    try:
        if pending is not None:
            await _finish(lane, pending, set_event)
        if in_flight > 1:
            await _serve_many(lane, bell, set_event, in_flight)
        else:
            await _serve_one_at_a_time(lane, bell, set_event)
    finally:
        bell.close()


async def _finish(lane: Lane, pending: Pending, set_event: Callable[[int], object]) -> None:
    """The event whose handler showed that the function is asynchronous."""
    id, event, awaitable = pending
    set_event(id)
    try:
        lane.answer(id, await awaitable)
    except lane.fatal:
        raise
    except BaseException as error:
        lane.failed(id, error)
    set_event(0)
    event.detach()
    lane.release()


async def _serve_one_at_a_time(lane: Lane, bell: Doorbell, set_event: Callable[[int], object]) -> None:
    channel, handler, context, event_class = lane.channel, lane.handler, lane.context, lane.event_class
    fatal, is_event, batch = lane.fatal, lane.protocol.EVENT, lane.protocol.BATCH
    turns = Turns()
    event: Any = object()
    alone = sys.getrefcount(event)
    while True:
        record = channel.take()
        if record is None:
            await bell.rung()
            continue
        kind, flags, id, _ = record
        if kind != is_event or flags & batch:
            if not await _unusual(lane, record, set_event):
                return
            continue
        set_event(id)
        event = event_class(record)
        try:
            result = handler(context, event)
            if hasattr(type(result), "__await__"):
                result = await result
            lane.answer(id, result)
        except fatal:
            raise
        except BaseException as error:
            lane.failed(id, error)
        set_event(0)
        if sys.getrefcount(event) > alone:
            event.detach()
        result = None  # it may hold a view of the record's memory
        lane.release()
        await turns.next()


async def _serve_many(lane: Lane, bell: Doorbell, set_event: Callable[[int], object], in_flight: int) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:  # leaving it waits for the events in flight
            await _start_many(lane, bell, set_event, in_flight, tasks)
    except BaseExceptionGroup as group:  # only the channel's own error comes out of there
        raise group.exceptions[0] from None


async def _start_many(
    lane: Lane, bell: Doorbell, set_event: Callable[[int], object], in_flight: int, tasks: asyncio.TaskGroup
) -> None:
    turns, room = Turns(), asyncio.Semaphore(in_flight)
    while True:
        await room.acquire()
        while (record := lane.channel.take()) is None:
            await bell.rung()
        if record[0] != lane.protocol.EVENT or record[1] & lane.protocol.BATCH:
            room.release()
            if not await _unusual(lane, record, set_event):
                return
            continue
        event = lane.event_class(record)
        event.detach()
        lane.release()
        task = tasks.create_task(_handle(lane, bell, record[2], event, set_event))
        task.add_done_callback(lambda _: room.release())
        await turns.next()


async def _handle(lane: Lane, bell: Doorbell, id: int, event: Any, set_event: Callable[[int], object]) -> None:
    """One event of several, in a task of its own. Never raises."""
    set_event(id)
    try:
        result = lane.handler(lane.context, event)
        if hasattr(type(result), "__await__"):
            result = await result
        lane.answer(id, result)
    except lane.fatal as error:
        bell.fail(error)
    except BaseException as error:
        try:
            lane.failed(id, error)
        except lane.fatal as closed:
            bell.fail(closed)


async def _unusual(lane: Lane, record: Any, set_event: Callable[[int], object]) -> bool:
    """A batch or a control record. False: stop."""
    kind, protocol = record[0], lane.protocol
    if kind == protocol.EVENT:
        await _serve_batch(lane, record, set_event)
    elif kind == protocol.DRAIN:
        await _call(lane, "drain", lane.context.platform.drain_callback)
        lane.channel.control(protocol.DRAINED)
    elif kind == protocol.STOP:
        await terminate(lane)
    lane.release()
    return bool(kind != protocol.STOP)


async def _serve_batch(lane: Lane, record: Any, set_event: Callable[[int], object]) -> None:
    events = lane.take_batch(record)
    set_event(events[0]._record[2])
    try:
        result = lane.handler(lane.context, events)
        if hasattr(type(result), "__await__"):
            result = await result
        lane.answer_batch(events, result)
    except lane.fatal:
        raise
    except BaseException as error:
        lane.fail_batch(events, error)
    set_event(0)


async def terminate(lane: Lane) -> None:
    """Run the termination callback."""
    await _call(lane, "termination", lane.context.platform.termination_callback)


async def _call(lane: Lane, name: str, callback: Any) -> None:
    if callback is None:
        return
    try:
        result = callback()
        if hasattr(type(result), "__await__"):
            await result
    except BaseException as error:
        lane.callback_failed(name, error)
