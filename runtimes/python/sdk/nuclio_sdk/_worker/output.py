"""The logger's way to the processor.

Promise: it never raises into a handler: when the processor is gone, or in a process that the handler forked (which must
not write into its parent's channel), the record goes to stderr instead.
"""

from __future__ import annotations

import sys
import time

from ..json_encoder import Encoder

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shmem._channel import WorkerChannel

_LEVEL_NAMES = ("debug", "info", "warn", "error")


class ChannelOutput:
    """Called by a Logger. `event_id` is the number of the event in hand, 0 for none."""

    event_id = 0

    def __init__(self, channel: WorkerChannel) -> None:
        self.channel: WorkerChannel | None = channel
        self._encode = Encoder().encode

    def current(self) -> int:
        """The event during which the caller runs. Replaced where several are in flight."""
        return self.event_id

    def __call__(self, level: int, message: str, fields: dict[str, Any]) -> None:
        channel = self.channel
        rank = min(max(level // 10 - 1, 0), 3)
        text = self._text(fields) if fields else ""
        if channel is None:
            print(f"[{_LEVEL_NAMES[rank]}] {message} {text}", file=sys.stderr)
            return
        try:
            channel.log(self.current(), rank, time.time_ns(), message, text)
        except Exception as error:  # the processor is gone: the log must not be what the handler fails at
            print(f"[{_LEVEL_NAMES[rank]}] {message} {text} (not sent: {error})", file=sys.stderr)

    def _text(self, fields: dict[str, Any]) -> str:
        try:
            return self._encode(fields)
        except Exception:  # circular, or a key that JSON cannot have
            return self._encode({name: _repr(value) for name, value in fields.items()})


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<no repr: {type(error).__name__}>"


def event_of_context(output: ChannelOutput) -> Callable[[int], object]:
    """Attribute records to the event whose task made them. Returns the function that a task calls with its event."""
    from contextvars import ContextVar

    event: ContextVar[int] = ContextVar("event", default=0)
    output.current = event.get  # type: ignore[method-assign]
    return event.set
