"""One event on its way through the dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.model.event import Event, Text
from agent.model.sink import Done

if TYPE_CHECKING:
    from agent.processor.sink import TriggerSink


class Job:
    """An attempt to have one event handled. Belongs to a sink, then to a pool's queue or to a lane, then to nobody."""

    __slots__ = (
        "attempts",
        "begun_ns",
        "buried",
        "done",
        "event",
        "expires",
        "id",
        "key",
        "logs",
        "patient",
        "retry",
        "sink",
        "started_ns",
        "token",
    )

    def __init__(self, event: Event, done: Done, sink: TriggerSink, now_ns: int, patient: bool) -> None:
        self.event = event
        self.done = done
        self.sink = sink
        self.started_ns = now_ns  # monotonic, when the trigger handed it over
        self.patient = patient  # delivered, not dispatched: waits for a worker as long as it takes
        self.retry = False  # an attempt that fails is made again
        self.buried = False  # it comes out of the dead letters
        self.key: Text = b""  # the order key it holds
        self.attempts = 1
        self.id = 0  # of the record, while in a lane
        self.token = 0  # what put_event returned
        self.begun_ns = 0  # monotonic, when it was put into the ring
        self.expires = 0.0  # loop time; only while it waits for a worker
        self.logs: list[dict[str, Any]] | None = None


Group = list[Job]
"""Jobs that travel together: a batch, or just one."""
