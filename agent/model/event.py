"""Events and what becomes of them: the words that triggers and the dispatcher share.

Flow: trigger makes an Event -> sink -> dispatcher -> channel -> worker; the Outcome comes back the same way.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Text = str | bytes
Pairs = Sequence[tuple[Text, Text]]
"""Names and values in the order received. `bytes` travel as they are; `str` travel as UTF-8."""

NOW = -1
"""`Event.timestamp_ns` for "when it is dispatched"."""

LATEST_NS = 2**63 - 1
"""The last time that an event can carry, in April 2262: a trigger must not hand on a later one, nor one before 1970."""


@dataclass(slots=True)
class Event:
    """One message for a function. Owned by the dispatcher from the moment it is handed over: do not change it after.

    `body` any bytes-like object. `fields` pairs, or the raw query string as `bytes`, decoded by whoever reads it.
    `id` empty means: a UUID made from the record's number, so that nobody pays for one that is never read.
    `timestamp_ns` nanoseconds since 1970 (wall clock), or NOW. `log_level` not empty: the function's log records at
    or above it are collected into the outcome.
    """

    body: bytes | bytearray | memoryview = b""
    content_type: Text = ""
    headers: Pairs = ()
    fields: bytes | Pairs = b""
    method: Text = ""
    path: Text = ""
    url: Text = ""
    topic: Text = ""
    id: Text = ""
    timestamp_ns: int = NOW
    type: Text = ""
    type_version: Text = ""
    version: Text = ""
    shard_id: int = -1
    num_shards: int = 0
    offset: int = 0
    source: Text = ""  # what the function sees as event.trigger.kind; empty = the trigger's kind (CloudEvents set it)
    json_body: bool = False  # the body is JSON that the function must see decoded, whatever content_type says
    log_level: str = ""


class Result(enum.Enum):
    """How one event ended. Only REPLIED carries a reply of the function."""

    REPLIED = "replied"
    TIMED_OUT = "timed out"  # eventTimeout passed; the worker was replaced
    WORKER_DIED = "worker died"  # while it had this event in hand
    NO_WORKER = "no worker"  # none was free within workerAvailabilityTimeoutMilliseconds, or the queue is full
    TOO_LARGE = "too large"  # does not fit the channel's limits
    STOPPED = "stopped"  # the processor is going away; the event was never started


@dataclass(slots=True)
class Outcome:
    """What became of an event, as the trigger reports it to its source."""

    result: Result
    status: int = 0
    content_type: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    logs: list[dict[str, Any]] | None = None  # only when the event asked for them
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """The handler has done its work: it replied, and not with a server error (a raise is a 500)."""
        return self.result is Result.REPLIED and self.status < 500
