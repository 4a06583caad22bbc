"""The durable side of a function: its store, opened only when something has to be kept.

Why: most functions need no disk, and then no database is opened, no thread started, no library loaded.
Flow: sinks -> [delivery] -> commits -> store.
Promise: opened at the start for triggers with a journal or ids, and wherever a store lies from before; else at the
first dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.model.event import Event, Outcome
from agent.model.spec import DeadLetters, Journal, Outbox, TriggerSpec
from agent.processor.delivery.codec import encode_event
from agent.processor.delivery.group import Caps, Group, Letter, Then
from agent.processor.delivery.terms import Sink, reason_of, window_of

if TYPE_CHECKING:
    from loguru import Logger

    from agent.processor.delivery.commits import Commits
    from agent.processor.delivery.letters import Dropped
    from agent.processor.delivery.replays import Replays
    from agent.processor.delivery.store import Contents

DATABASE = "delivery.db"


class Listener(Protocol):
    """Another part of the processor that keeps something in the store."""

    def opened(self) -> None:
        """The store is open, or was replaced by what could be saved of it."""

    def store_changed(self, trouble: str) -> None:
        """Why nothing new should be written; empty when all is well."""


class Delivery:
    """One a processor. `specs` are the triggers it runs."""

    def __init__(
        self, folder: Path, specs: Mapping[str, TriggerSpec], log: Logger, outbox: Outbox | None = None
    ) -> None:
        """`outbox`: what the function's specification says of it, since its store is the same."""
        self._folder, self._specs, self._log = folder, specs, log
        self._outbox = outbox or Outbox()
        self.listeners: list[Listener] = []
        self._commits: Commits | None = None
        self._replays: Replays | None = None
        self._sinks: Mapping[str, Sink] = {}
        self._stopping = False

    def start(self, sinks: Mapping[str, Sink]) -> None:
        """The workers are ready. Opens the store where it is needed, or there is one already."""
        self._sinks = sinks
        if any(sink.durable for sink in sinks.values()) or (self._folder / DATABASE).exists():
            self.commits  # noqa: B018 - opening is the point

    @property
    def present(self) -> bool:
        """There is a store, open or lying there from before."""
        return self._commits is not None or (self._folder / DATABASE).exists()

    @property
    def commits(self) -> Commits:
        """The store's group commit, opened now if it is not yet."""
        if self._commits is None:
            from agent.processor.delivery.commits import Commits, Floor  # late: sqlite3 costs memory

            keys: list[Journal | Outbox] = [self._outbox, *(spec.journal_keys for spec in self._specs.values())]
            self._commits = Commits(
                self._folder / DATABASE,
                list(self._specs),
                Floor(min(item.min_free_bytes for item in keys), min(item.min_free_percent for item in keys)),
                self._log,
                opened=self._opened,
                changed=self._changed,
                dropped=self._dropped,
            )
        return self._commits

    def bury(
        self,
        trigger: str,
        event: Event | bytes,
        outcome: Outcome,
        then: Then,
        *,
        received_ns: int = 0,
        mark: bytes | None = None,
    ) -> Group:
        """Add an event to the dead letters; `then` when it is there. Returns the group that it is written with."""
        spec = self._specs[trigger]
        group = self.commits.group(window_of(spec))
        record = event if isinstance(event, bytes) else encode_event(event)
        how = (outcome.result.value, outcome.status, reason_of(outcome))
        letter = Letter(trigger, outcome.attempts, received_ns, time.time_ns(), *how, mark, record)
        keys = spec.dead_letters if isinstance(spec.dead_letters, DeadLetters) else DeadLetters()
        group.letters.append((letter, Caps(keys.max_count, keys.max_bytes, keys.max_age)))
        group.then.append(then)
        self._sinks[trigger].count("dead_letters")
        return group

    # --- the store has news --------------------------------------------------------------------------------------

    def _opened(self, contents: Contents) -> None:
        from agent.processor.delivery.replays import Replays

        for name, sink in self._sinks.items():
            sink.opened(contents.triggers[name])
        for listener in self.listeners:
            listener.opened()
        if self._replays is None and not self._stopping:
            # A journal that the function had and has no more is emptied all the same.
            left = {
                name: kept.first_seq - 1
                for name, kept in contents.triggers.items()
                if kept.events and not self._sinks[name].journalled
            }
            self._replays = Replays(self._folder, self.commits, self._sinks, left, self.bury, self._log)
        elif self._replays:
            self._replays.ring()

    def _changed(self) -> None:
        everybody: list[Sink | Listener] = [*self._sinks.values(), *self.listeners]
        for item in everybody:
            item.store_changed(self.commits.trouble)

    def _dropped(self, dropped: dict[str, Dropped]) -> None:
        for trigger, item in dropped.items():
            for name, n in (("count", item.over_count), ("bytes", item.over_size), ("age", item.too_old)):
                if n:
                    self._sinks[trigger].count(f"dead_letters_dropped_{name}", n)

    # --- the end -------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """The processor stops: nothing more is replayed, and a disk that refuses is not waited for."""
        self._stopping = True
        if self._replays:
            self._replays.stop()
        if self._commits:
            self._commits.hurry()

    async def close(self) -> None:
        """After the workers have ended: write what is left and let go of the store."""
        self._stopping = True
        if self._replays:
            await self._replays.close()
        if self._commits:
            await self._commits.close()
