"""The outbox's way to the function's delivery store: changes go with its group commit, reads into its thread.

Flow: targets -> [disk] -> commits -> storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from agent.model.outlet import Parcel
from agent.processor.delivery.delivery import Delivery
from agent.processor.delivery.group import Group, Then

if TYPE_CHECKING:
    import sqlite3

    from agent.processor.outbox.storage import Changes, Page, Stored

T = TypeVar("T")

_REMOVE_S = 1.0  # with whatever is stored next: a removal of its own would double what is written for a message
_EXCHANGE_S = 0.005  # between the halves of a QoS 2 exchange: the receiver waits


class Disk:
    """One for all targets of a function."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._group: Group | None = None
        self._changes: Changes

    @property
    def trouble(self) -> str:
        """Why nothing new should be stored."""
        return self._delivery.commits.trouble

    @property
    def at(self) -> int:
        """Seconds on a clock that stands still while nobody has the store open."""
        return self._delivery.commits.at

    def _now(self, window_s: float) -> Changes:
        from agent.processor.outbox.storage import Changes  # late: sqlite3 costs memory, and few functions publish

        group = self._delivery.commits.group(window_s)
        if group is not self._group:
            self._group, self._changes = group, Changes()
            group.writes.append(self._changes.write)
        return self._changes

    def insert(self, parcels: Iterable[tuple[int, Parcel]], window_s: float, then: Then) -> None:
        """Store them together; `then` when they are on the disk."""
        self._now(window_s).inserts.extend(parcels)
        assert self._group is not None
        self._group.then.append(then)

    def remove(self, target: int, parcel: Parcel, then: Then | None = None) -> None:
        """It need not be kept any more."""
        self._now(_REMOVE_S).remove(target, parcel)
        if then:
            assert self._group is not None
            self._group.then.append(then)

    def release(self, target: int, parcel: Parcel, then: Callable[[], None]) -> None:
        """The receiver has it; `then` once that is on the disk."""
        self._now(_EXCHANGE_S).release(target, parcel)
        assert self._group is not None
        self._group.then.append(lambda written: then() if written else None)

    async def register(self, names: list[str]) -> dict[str, Stored]:
        """What is there of every target; waits for the store. Raises sqlite3.Error."""
        from agent.processor.outbox import storage

        return await self._call(lambda database: storage.register(database, names))

    async def page(self, target: int, after: int, limit: int, most_bytes: int) -> Page:
        """Raises sqlite3.Error."""
        from agent.processor.outbox import storage

        return await self._call(lambda database: storage.page(database, target, after, limit, most_bytes))

    async def expire(self, target: int, before: int) -> int:
        """Raises sqlite3.Error."""
        from agent.processor.outbox import storage

        return await self._call(lambda database: storage.expire(database, target, before))

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._delivery.commits.call(lambda store: store.ask(work))
