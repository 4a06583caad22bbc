"""Serial trigger: one frame in, one event out; with `reply: true` the result goes back.

Why: meters, scales, radios and microcontrollers speak over a serial line, and lines get unplugged.
Flow: device -> [port -> codec] -> sink -> worker, and the reply back through the same codec.
Promise: frames are delivered in the order received. The line cannot send again, so what a full queue does is a
choice: `drop` reads on and counts, `block` stops reading. A device that vanishes is waited for, for ever, and opened
again under whatever name it gets; nothing is leaked meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

from agent.model.event import Event, Outcome
from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.triggers.serial.device import FIRST_DELAY_S, LONGEST_DELAY_S, open_device
from agent.triggers.serial.port import Port, PortLost
from agent.triggers.serial.replies import Replies
from agent.triggers.serial.spec import SerialSpec

LINE_ERRORS_EVERY_S = 1.0
SHORTEST_SURE_GAP_S = 0.005


@trigger(SerialSpec)
async def run(spec: SerialSpec, sink: Sink) -> None:
    """Runs until cancelled, through any number of losses of the device."""
    if spec.frame.type == "idleGap" and (spec.silence_s or 0) < SHORTEST_SURE_GAP_S:
        sink.log.warning("gaps under 5 ms are not reliable on USB adapters", gap_s=spec.silence_s)
    line = Line(spec, sink)
    delay = 0.0
    try:
        while True:
            port = await open_device(spec, sink)
            sink.up(port.real_path)
            sink.down(await line.serve(port))
            await line.flush()
            # A port that opens but brings nothing before it is lost again must not be opened in a tight loop.
            delay = 0.0 if line.heard else min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
    finally:
        line.close()
        sink.release()
        await sink.drained()


class Line:
    """What outlives one opening of the port: the decoder, and frames that wait for room in the queue."""

    def __init__(self, spec: SerialSpec, sink: Sink) -> None:
        self._spec, self._sink = spec, sink
        self._codec = spec.new_codec()
        self._codec.restart()
        self._line_errors_at = 0.0
        self._backlog: deque[Event] = deque()  # at most the frames of one read
        self.heard = False
        """The last `serve` received at least one byte."""

    async def serve(self, port: Port) -> str:
        """Deliver the frames of `port` until it is lost; returns how that showed. Closes `port`."""
        replies = Replies(self._spec, self._sink, port, self._codec)
        self.heard = False
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(replies.write_all(), name=f"replies:{self._sink.name}")
                try:
                    return await self._read(port, replies)
                except asyncio.CancelledError:
                    # Intake has ended, but what is in flight is still owed its answer, on this port.
                    await replies.written()
                    raise
                finally:
                    writer.cancel()
        finally:
            self._count_line_errors(port)
            port.close()
            replies.abandon()
            self._codec.restart()
            self._count()

    async def flush(self) -> None:
        """Deliver what had come before the port was lost. Until that has found room there is no use in reading more."""
        while self._backlog:
            await self._sink.room()
            self._deliver_next(None)

    def close(self) -> None:
        """Intake has ended; what found no room is lost, and counted."""
        if self._backlog:
            self._sink.count("dropped", len(self._backlog))
            self._backlog.clear()

    async def _read(self, port: Port, replies: Replies) -> str:
        """Returns how the loss of the port showed."""
        try:
            while True:
                data = await port.read(self._spec.silence_s if self._codec.pending else None)
                self._take(data, port.real_path)
                await self._deliver(port, replies)
                if time.monotonic() >= self._line_errors_at:
                    self._count_line_errors(port)
        except PortLost as lost:
            return str(lost)

    def _take(self, data: bytes | None, url: str) -> None:
        """What one read gave, None for a silence, into events."""
        received_ns = time.time_ns()
        if data is None:
            frames = self._codec.silence()
        else:
            self.heard = True
            self._sink.count("bytes", len(data))
            frames = self._codec.feed(data)
        self._count()
        if frames:
            self._sink.count("frames", len(frames))
            self._backlog.extend(self._event(frame, url, received_ns) for frame in frames)

    def _event(self, frame: bytes, url: str, received_ns: int) -> Event:
        spec = self._spec
        return Event(body=frame, content_type=spec.content_type, path=spec.label, url=url, timestamp_ns=received_ns)

    async def _deliver(self, port: Port, replies: Replies) -> None:
        """Everything that has come: into the queue, or where that is full, waited with or dropped."""
        while self._backlog:
            if self._sink.full and self._spec.blocks:
                await port.while_present(self._sink.room())
            elif self._sink.full or replies.full:
                self._sink.count("dropped")
                self._backlog.popleft()
            else:
                self._deliver_next(replies)

    def _deliver_next(self, replies: Replies | None) -> None:
        done = replies.slot() if replies and self._spec.reply else _no_reply
        self._sink.deliver(self._backlog.popleft(), done)

    def _count(self) -> None:
        for what, n in self._codec.counts.items():
            self._sink.count(what, n)
        self._codec.counts.clear()

    def _count_line_errors(self, port: Port) -> None:
        self._line_errors_at = time.monotonic() + LINE_ERRORS_EVERY_S
        for what, n in port.line_errors().items():
            self._sink.count(what, n)


def _no_reply(outcome: Outcome) -> None:
    """The result of this handler goes nowhere."""
