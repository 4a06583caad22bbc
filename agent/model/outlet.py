"""What a binding gets from its processor to deliver from: the outlet, the way out of the function's outbox.

A binding that delivers is one coroutine function `deliver(spec, outlet)` that runs until it is cancelled, and comes
back from it with its connection closed. It reconnects by itself, for ever. The outlet outlives its connections.

Rules
- `take` what the connection has room for; each parcel is given once. Keep it until it is `confirmed` or `refused`:
  after a reconnect what is not confirmed is sent again, first and in the same order.
- Everything runs on the processor's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from loguru import Logger


@dataclass(slots=True)
class Message:
    """What a function has published. `key`: messages of one key keep their order."""

    topic: str
    body: bytes
    qos: int = 1
    retain: bool = False
    headers: Sequence[tuple[str, str]] = ()
    key: str = ""

    @property
    def order(self) -> str:
        return self.key or self.topic


@dataclass(slots=True, eq=False)
class Parcel:
    """A message on its way to one target. `number` counts the target's messages and is never used again."""

    number: int
    at: int  # seconds on the outbox's clock when it was stored
    message: Message
    size: int
    again: bool = False  # it may have been sent before
    released: bool = False  # QoS 2: the broker has taken it over, and waits for our word
    waited_s: int = 0  # set when it is taken
    historical: bool = False  # it waited longer than `historicalAfter`
    marks: list[tuple[str, str]] = field(default_factory=list)  # headers that tell source, number and age


class Outlet(Protocol):
    """One target's messages. Not thread-safe: use it on the event loop."""

    name: str  # of the binding, or of the trigger whose broker it is
    function: str
    durable: bool
    log: Logger

    def attach(self, ready: Callable[[], None]) -> None:
        """`ready` is called whenever there may be something to take after `take` gave None."""

    def take(self) -> Parcel | None:
        """The next to send, in order; None when there is none now. It is not given twice."""

    def confirmed(self, parcel: Parcel) -> None:
        """The receiver has it: it is removed."""

    def hand_over(self, parcel: Parcel, then: Callable[[], None]) -> None:
        """QoS 2: the receiver has it, and the exchange is not over. `then` once that is on the disk."""

    def refused(self, parcel: Parcel, reason: str) -> None:
        """The receiver will never take it: it is dropped, and counted as `reason`."""

    def up(self, address: str) -> None:
        """Connected."""

    def down(self, why: str) -> None:
        """Not connected, and why; told once a change."""
