"""Kickstart trigger: one event when the function starts.

Why: work that a function does once, such as announcing itself or filling a cache, written as an event instead of code
at import. Flow: start -> [kickstart] -> sink. Promise: one event each time the trigger starts, so also after a new
version took over and after the processor was restarted; what the handler answers is not used.
"""

from __future__ import annotations

import asyncio

from agent.model.configured_event import ConfiguredEvent
from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.model.spec import TriggerSpec


class KickstartSpec(TriggerSpec, frozen=True, kw_only=True):
    """The one event."""

    event: ConfiguredEvent = ConfiguredEvent()


@trigger(KickstartSpec)
async def run(spec: KickstartSpec, sink: Sink) -> None:
    """Sends its event, then waits to be cancelled."""
    try:
        sink.up()
        await sink.send(spec.event.make())
        await asyncio.get_running_loop().create_future()
    finally:
        await sink.drained()
