"""What all connections of one http trigger share: limits, encoder, the clock, and how they end.

Flow: trigger.py makes one -> every connection (protocol.py) belongs to it. Promise: time-outs need no timer per
connection and no clock per request: one sweep a tick looks at all connections, and there is no tick while there are
none.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.model.sink import Sink
from agent.triggers.http.cors import CorsRules
from agent.triggers.http.response import Encoder
from agent.triggers.http.spec import HttpSpec

if TYPE_CHECKING:
    from agent.triggers.http.protocol import Connection

LONGEST_TICK_S = 1.0
SHORTEST_TICK_S = 0.01
NEVER = sys.maxsize
GRACE_S = 1.0  # of kept-alive connections for one more request, once the trigger stops


class Listener:
    """Owned by the trigger's task. `tasks` must be set before the first connection is made."""

    tasks: asyncio.TaskGroup

    def __init__(self, spec: HttpSpec, sink: Sink) -> None:
        self.sink = sink
        self.loop = asyncio.get_running_loop()
        self.head_limit = spec.read_buffer_size
        self.body_limit = spec.max_request_body_size
        self.max_connections = spec.max_connections
        self.cors = CorsRules(spec.cors) if spec.cors.enabled else None
        self.encoder = Encoder(sink.count)
        self.dispatch = sink.dispatch
        self.tick_s = _tick_s(spec)
        self.idle_ticks = self._ticks(spec.idle_timeout)
        self.request_ticks = self._ticks(spec.request_timeout)
        self.tick = 0
        self.draining = False
        self.connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._none_left = asyncio.Event()
        self._reader: ThreadPoolExecutor | None = None

    @property
    def reader(self) -> ThreadPoolExecutor:
        """The one thread that reads files for replies; started when the first reply asks for one."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"http:{self.sink.name}")
        return self._reader

    def _ticks(self, seconds: float) -> int:
        return math.ceil(seconds / self.tick_s) if seconds > 0 else NEVER

    def add(self, connection: Connection) -> bool:
        """False when there are as many connections as are allowed."""
        if len(self.connections) >= self.max_connections:
            return False
        self.connections.add(connection)
        self._none_left.clear()
        if self._timer is None:
            self.encoder.refresh(time.time())
            self._timer = self.loop.call_later(self.tick_s, self._sweep)
        return True

    def remove(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._none_left.set()

    def _sweep(self) -> None:
        """One tick: set the date, end what has taken too long. The last one is the first that finds nobody."""
        self.tick += 1
        self._timer = None
        if not self.connections:
            return
        self.encoder.refresh(time.time())
        for connection in tuple(self.connections):
            connection.sweep(self.tick)
        self._timer = self.loop.call_later(self.tick_s, self._sweep)

    async def drain(self) -> None:
        """Answer what has been read, give kept-alive connections a moment for one more request, end them all."""
        self.draining = True
        if not await self._ended_within(GRACE_S):
            for connection in tuple(self.connections):
                connection.end_if_idle()
        await self.sink.drained()
        if self.connections:
            await self._none_left.wait()

    async def _ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while self.connections:
                    await self._none_left.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cut what is left; join the thread."""
        for connection in tuple(self.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reader is not None:
            self._reader.shutdown(wait=True)


def _tick_s(spec: HttpSpec) -> float:
    """A second, or less when a time-out is so short that it would be missed by much."""
    shortest = min((limit for limit in (spec.idle_timeout, spec.request_timeout) if limit > 0), default=4.0)
    return min(LONGEST_TICK_S, max(SHORTEST_TICK_S, shortest / 4))
