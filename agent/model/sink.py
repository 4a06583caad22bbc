"""What a trigger gets from its processor: the sink, the one way into the function.

A trigger is one coroutine function `run(spec, sink)` that runs until it is cancelled:

    @trigger(UdpSpec)
    async def run(spec: UdpSpec, sink: Sink) -> None: ...

Rules for `run`
- It raises `SourceUnavailable` (or any AgentError with `retry`) when its source is away; the processor starts it
  again, waiting longer each time. A trigger that manages its own reconnects may also stay inside.
- Cancelled, it stops taking events at once, waits in its `finally` for `await sink.drained()` so that what is in
  flight is still answered or acknowledged, closes its source and returns. The processor bounds that wait by
  `workerTerminationTimeout` and then cancels a second time.
- Everything runs on the processor's event loop. Blocking calls go to a thread that the trigger owns and joins.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.model.event import Event, Outcome

if TYPE_CHECKING:
    from loguru import Logger

Done = Callable[[Outcome], None]


class Sink(Protocol):
    """One trigger's way into its function. Not thread-safe: use it on the event loop (`loop.call_soon_threadsafe`)."""

    name: str  # of the trigger
    function: str  # name of the function, for topics, client ids and logs
    log: Logger  # bound to function and trigger
    state_dir: Path  # exists, private to this trigger, kept across restarts and versions
    listeners: Sequence[socket.socket]  # listening sockets opened by the agent for this trigger; may be empty

    def dispatch(self, event: Event, done: Done) -> None:
        """Run the handler once. `done` is called exactly once, later, on the loop, never from inside this call.

        Waits for a worker up to the trigger's `workerAvailabilityTimeoutMilliseconds`, then `done` gets NO_WORKER.
        For sources whose caller waits (HTTP).
        """

    def deliver(self, event: Event, done: Done) -> None:
        """Run the handler under the trigger's `delivery` promise: a failed attempt is made again with growing, jittered
        delay up to `maxAttempts`. `done` is called exactly once, on the loop, with the last outcome. Always accepts;
        a trigger keeps its own bound by looking at `full` or awaiting `room()` first.
        """

    async def send(self, event: Event) -> Outcome:
        """`await room()`, `deliver`, and the outcome: all that a one-at-a-time source needs."""

    @property
    def full(self) -> bool:
        """The queue in front of the workers is at its bound: stop reading the source, or drop and count."""

    async def room(self) -> None:
        """Returns once `full` is false."""

    async def drained(self) -> None:
        """Returns once nothing of this trigger is in flight (queued, in a worker, or waiting for its next attempt)."""

    def count(self, what: str, n: int = 1) -> None:
        """Add to a named counter of this trigger, such as "dropped" or "frames_bad"; shown in statistics."""

    def up(self, address: str = "") -> None:
        """The source is connected (or listening on `address`, as a URL or path). Shown in status."""

    def down(self, why: str) -> None:
        """The source is away or not usable, and why. The trigger goes on trying. Logged once a change."""

    def release(self) -> None:
        """Intake is closed: a new version may open the same source now, while this one still drains.
        Called by triggers that hold connections after they stopped accepting; else returning from `run` says it.
        """
