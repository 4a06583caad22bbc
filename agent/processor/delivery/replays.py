"""What waits in the store for a sink that does not fetch it itself: dead letters that somebody wants handled again, and
the journal of a trigger whose new version has none.

Flow: `headrace dead-letters replay` marks letters and rings the bell -> [replays] -> sink; the outcome goes into the
store. Promise: nothing leaves the store before it is handled; a page at a time is in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.model.event import Event, Outcome, Result
from agent.processor.delivery.codec import Damaged, decode_event
from agent.processor.delivery.group import Group, Returned, Then
from agent.processor.delivery.store import Row, Store
from agent.processor.delivery.terms import SOON_S, Sink, reason_of

if TYPE_CHECKING:
    from loguru import Logger

    from agent.processor.delivery.commits import Commits
    from agent.processor.delivery.letters import Replay

T = TypeVar("T")

BELL = "delivery.bell"
"""A pipe beside the store: who writes to it has marked dead letters to be handled again."""

_PAGE = 32
_PAGE_BYTES = 1 << 20


class Replays:
    """Made when the store is open. `left` are journals, by trigger, that end: the seq before their first event."""

    def __init__(
        self,
        folder: Path,
        commits: Commits,
        sinks: Mapping[str, Sink],
        left: Mapping[str, int],
        bury: Callable[[str, bytes, Outcome, Then], Group],
        log: Logger,
    ) -> None:
        self._path, self._commits, self._sinks, self._log = folder / BELL, commits, sinks, log
        self._loop = asyncio.get_running_loop()
        self._bell = -1
        self._rung = True
        self._task: asyncio.Task[None] | None = None
        self._left, self._bury = dict(left), bury
        self._stopping = False
        self._hang_bell()
        self._start()

    def ring(self) -> None:
        """Look for letters that are marked."""
        with contextlib.suppress(OSError):
            os.read(self._bell, 4096)
        self._rung = True
        self._start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        """Nothing of it is left."""
        self.stop()
        if self._bell >= 0:
            self._loop.remove_reader(self._bell)
            os.close(self._bell)
            self._bell = -1
        if self._task:
            await asyncio.wait((self._task,))

    def _hang_bell(self) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self._path, 0o600)
            # For writing too, or every writer that leaves would be an end-of-file.
            self._bell = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._log.warning("dead letters marked for replay wait for the next start", reason=str(error))
            return
        self._loop.add_reader(self._bell, self.ring)

    def _start(self) -> None:
        if self._task is None and not self._stopping:
            self._task = self._loop.create_task(self._run(), name="delivery:replays")

    async def _run(self) -> None:
        try:
            for trigger, after in self._left.items():
                await self._empty_journal(trigger, after)
            self._left.clear()
            while self._rung:
                self._rung = False
                await self._replay_letters()
        except sqlite3.Error as error:
            self._log.warning("dead letters cannot be replayed now", reason=str(error))
        finally:
            self._task = None
            if self._rung:
                self._start()

    async def _replay_letters(self) -> None:
        after = 0
        while page := await self._commits.call(partial(Store.replays, after=after, limit=_PAGE)):
            after = page[-1].id
            await asyncio.gather(*(self._replay(letter) for letter in page if letter.trigger in self._sinks))

    async def _replay(self, letter: Replay) -> None:
        sink = self._sinks[letter.trigger]
        outcome = await self._handle(sink, letter.event, letter.attempts)
        if outcome.result is Result.STOPPED:
            return  # still marked: the next start goes on with it
        group = self._commits.group(SOON_S)
        if outcome.ok:
            sink.count("dead_letters_replayed")
            group.settled.append(letter.id)
        else:
            how = (time.time_ns(), outcome.result.value, outcome.status, reason_of(outcome))
            group.returned.append(Returned(letter.attempts + outcome.attempts, *how, letter.id))
        await self._written(group)

    async def _empty_journal(self, trigger: str, after: int) -> None:
        while page := await self._commits.call(
            partial(Store.backlog, after=after, limit=_PAGE, most_bytes=_PAGE_BYTES)
        ):
            after = page[-1].seq
            await asyncio.gather(*(self._handle_left(trigger, row) for row in page))

    async def _handle_left(self, trigger: str, row: Row) -> None:
        outcome = await self._handle(self._sinks[trigger], row.event, row.attempts)
        if outcome.result is Result.STOPPED:
            return
        if outcome.ok:
            group = self._commits.group(SOON_S)
        else:
            group = self._bury(trigger, row.event, outcome, lambda written: None)
        group.removed.append(row.seq)
        await self._written(group)

    async def _handle(self, sink: Sink, record: bytes, attempts: int) -> Outcome:
        over: asyncio.Future[Outcome] = self._loop.create_future()
        try:
            event: Event = decode_event(record)
        except Damaged as error:
            return Outcome(Result.TOO_LARGE, body=f"the record is damaged: {error}".encode())
        sink.replay(event, attempts, partial(_resolve, over))
        return await over

    async def _written(self, group: Group) -> None:
        written: asyncio.Future[bool] = self._loop.create_future()
        group.then.append(partial(_resolve, written))
        await written


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
