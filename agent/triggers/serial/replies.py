"""Handlers' results back onto the line, in the order of the requests.

Why in order: a device on the other side tells answers apart by nothing else. Flow: frame -> `slot` (before the event is
delivered) -> its outcome, whenever it comes -> `write_all`, the one task that writes.
Promise: the answer of a later request never overtakes an earlier one; a request that failed gets no answer, which the
device sees as a time-out; `replyDelay` passes between a request and its answer, and between two answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from agent.model.event import Outcome
from agent.model.sink import Done, Sink
from agent.triggers.serial.framing.codec import Codec
from agent.triggers.serial.framing.octets import octets
from agent.triggers.serial.port import Port, PortLost
from agent.triggers.serial.spec import SerialSpec


@dataclass(slots=True)
class _Slot:
    received_at: float  # loop time
    outcome: Outcome | None = None


class Replies:
    """The answers owed on one open port."""

    def __init__(self, spec: SerialSpec, sink: Sink, port: Port, codec: Codec) -> None:
        self._spec, self._sink, self._port, self._codec = spec, sink, port, codec
        self._delimiter = None if spec.reply_delimiter is None else octets(spec.reply_delimiter, "replyDelimiter")
        self._loop = asyncio.get_running_loop()
        self._slots: deque[_Slot] = deque()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._line_free_at = 0.0

    @property
    def full(self) -> bool:
        """The line takes answers more slowly than requests come."""
        return len(self._slots) >= self._spec.queue_size

    def slot(self) -> Done:
        """Keep the next place in the order of answers; what is returned takes the outcome for it."""
        slot = _Slot(self._loop.time())
        self._slots.append(slot)
        self._idle.clear()

        def done(outcome: Outcome) -> None:
            slot.outcome = outcome
            self._changed.set()

        return done

    async def write_all(self) -> None:
        """Writes answers until cancelled. A lost port is the reader's to report; here it only costs the answer."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._slots and (outcome := self._slots[0].outcome) is not None:
                await self._answer(self._slots[0].received_at, outcome)
                self._slots.popleft()
            if not self._slots:
                self._idle.set()

    async def written(self) -> None:
        """Returns once no answer is owed and the last one has had the time to leave the driver."""
        await self._idle.wait()
        await asyncio.sleep(self._duration(self._port.unsent))

    def abandon(self) -> None:
        """The port is gone: count the answers that will never be written."""
        if self._slots:
            self._sink.count("replies_lost", len(self._slots))
        self._slots.clear()

    async def _answer(self, received_at: float, outcome: Outcome) -> None:
        if not outcome.ok or not outcome.body:
            return
        try:
            data = self._encoded(outcome.body)
        except ValueError as error:
            self._sink.count("replies_bad")
            self._sink.log.debug("reply does not fit the framing", error=str(error))
            return
        if self._spec.reply_delay:
            earliest = max(received_at, self._line_free_at) + self._spec.reply_delay
            await asyncio.sleep(max(0.0, earliest - self._loop.time()))
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        started = self._loop.time()
        try:
            await self._port.write(data, self._spec.write_timeout)
        except (TimeoutError, PortLost):
            self._sink.count("replies_lost")
            return
        self._sink.count("replies")
        self._line_free_at = started + self._duration(len(data))

    def _encoded(self, body: bytes) -> bytes:
        return self._codec.encode(body) if self._delimiter is None else body + self._delimiter

    def _duration(self, length: int) -> float:
        """Seconds that `length` bytes take on the line."""
        return length * self._spec.bits_per_byte / self._spec.baud_rate
