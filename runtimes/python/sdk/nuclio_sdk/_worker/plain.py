"""The loop around a plain handler: one event at a time, in this thread, without an event loop.

Flow: take a record -> lazy event -> handler -> reply -> release, and asleep in the channel when there is none.
Promise: no system call while events are waiting, and little work of its own: every line of `serve` runs once an event.
"""

from __future__ import annotations

import sys

from .lane import Lane

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    Pending = tuple[int, Any, Awaitable[Any]]
    """An event in hand whose handler returned an awaitable: number, event, awaitable."""


def serve(lane: Lane) -> Pending | None:
    """Serve until told to stop (None), or until the handler turns out to be asynchronous.

    Raises RingClosed when the processor is gone, ViewKept when the handler keeps what is not its own.
    """
    channel, handler, context, event_class = lane.channel, lane.handler, lane.context, lane.event_class
    take, reply, answer, release, output = channel.take, channel.reply, lane.answer, channel.release, lane.output
    fatal, is_event, batch = lane.fatal, lane.protocol.EVENT, lane.protocol.BATCH
    getrefcount = sys.getrefcount
    event: Any = object()
    alone = getrefcount(event)  # of an object that only this function knows
    while True:
        record = take()
        if record is None:
            channel.wait()
            continue
        kind, flags, id, _ = record
        if kind != is_event or flags & batch:
            if not _unusual(lane, record):
                return None
            continue
        output.event_id = id
        event = event_class(record)
        try:
            result = handler(context, event)
            of = type(result)
            if of is str:
                reply(id, 200, "text/plain", None, result)
            elif hasattr(of, "__await__"):
                return id, event, result
            else:
                answer(id, result)
        except fatal:
            raise
        except BaseException as error:  # a handler may raise SystemExit: the event failed, the worker goes on
            lane.failed(id, error)
        output.event_id = 0
        if getrefcount(event) > alone:
            event.detach()  # somebody keeps the event
        result = None  # it may hold a view of the record's memory
        try:
            release()
        except BufferError:
            lane.release()


def _unusual(lane: Lane, record: Any) -> bool:
    """A batch or a control record. False: stop."""
    kind, protocol = record[0], lane.protocol
    if kind == protocol.EVENT:
        _serve_batch(lane, record)
    elif kind == protocol.DRAIN:
        _call(lane, "drain", lane.context.platform.drain_callback)
        lane.channel.control(protocol.DRAINED)
    lane.channel.release()
    return bool(kind != protocol.STOP)


def _serve_batch(lane: Lane, record: Any) -> None:
    events = lane.take_batch(record)
    lane.output.event_id = events[0]._record[2]
    try:
        result = lane.handler(lane.context, events)
        if hasattr(type(result), "__await__"):
            result = _run(result)
        lane.answer_batch(events, result)
    except lane.fatal:
        raise
    except BaseException as error:
        lane.fail_batch(events, error)
    lane.output.event_id = 0


def terminate(lane: Lane) -> None:
    """Run the termination callback."""
    _call(lane, "termination", lane.context.platform.termination_callback)


def _call(lane: Lane, name: str, callback: Any) -> None:
    if callback is None:
        return
    try:
        result = callback()
        if hasattr(type(result), "__await__"):
            _run(result)
    except BaseException as error:
        lane.callback_failed(name, error)


def _run(awaitable: Any) -> Any:
    import asyncio

    async def finish() -> Any:
        return await awaitable

    return asyncio.run(finish())
