"""A Sink for tests of one trigger without a processor: records events, answers as told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from agent.model.event import Event, Outcome, Result


class RecordingSink:
    """Implements `agent.model.sink.Sink`. `answer(event)` decides each outcome; `hold` keeps events unanswered."""

    def __init__(self, state_dir: Path, answer: Callable[[Event], Outcome] | None = None, name: str = "t") -> None:
        self.name = name
        self.function = "f"
        self.log = logger
        self.state_dir = state_dir
        self.listeners: Sequence[Any] = ()
        self.answer = answer or (lambda event: Outcome(Result.REPLIED, 200, "text/plain", [], bytes(event.body)))
        self.events: list[Event] = []
        self.held: list[tuple[Event, Callable[[Outcome], None]]] = []
        self.hold = False
        self.capacity = 10**9
        self.in_flight = 0
        self.counters: Counter[str] = Counter()
        self.state = ""
        self.address = ""
        self.released = False

    def dispatch(self, event: Event, done: Callable[[Outcome], None]) -> None:
        self.events.append(event)
        self.in_flight += 1
        if self.hold:
            self.held.append((event, done))
        else:
            asyncio.get_running_loop().call_soon(self._finish, event, done)

    deliver = dispatch

    def _finish(self, event: Event, done: Callable[[Outcome], None]) -> None:
        self.in_flight -= 1
        done(self.answer(event))

    def finish_held(self) -> None:
        held, self.held = self.held, []
        for event, done in held:
            self._finish(event, done)

    async def send(self, event: Event) -> Outcome:
        await self.room()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.deliver(event, lambda outcome: future.done() or future.set_result(outcome))
        return await future

    @property
    def full(self) -> bool:
        return self.in_flight >= self.capacity

    async def room(self) -> None:
        while self.full:
            await asyncio.sleep(0.001)

    async def drained(self) -> None:
        while self.in_flight:
            await asyncio.sleep(0.001)

    def count(self, what: str, n: int = 1) -> None:
        self.counters[what] += n

    def up(self, address: str = "") -> None:
        self.state, self.address = "up", address

    def down(self, why: str) -> None:
        self.state = f"down: {why}"

    def release(self) -> None:
        self.released = True
