"""Group commit: what must be durable is collected for a moment and written at once, by one thread.

Flow: sinks fill the `group` -> [commits] -> store, in its thread -> the group's `then`, on the loop.

Promises
- The loop never waits for the disk. The connection belongs to one thread.
- What was committed is on the disk when `then` is called with True.
- A commit that fails (disk full, EIO) is made again, together with what has come since, waiting longer each time;
  meanwhile `trouble` says why, and the sinks stop their intake.
- A damaged database is replaced, with what could be read of it, and the commit is made again.
- With little space left on the disk (`floor`) intake stops too: before the disk is full, not after.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from agent.model.errors import AgentError
from agent.processor.delivery.group import Group
from agent.processor.delivery.letters import Dropped
from agent.processor.delivery.lock import Ownership
from agent.processor.delivery.recovery import is_damage
from agent.processor.delivery.schema import Connect, connect
from agent.processor.delivery.store import Contents, Store

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 10.0
_LOOK_AGAIN_S = 5.0  # at the free space, while it is low: nothing tells when somebody has made room


class Floor(NamedTuple):
    """Free space of the disk below which intake stops; the larger of the two counts."""

    bytes: int
    percent: float


class Commits:
    """`opened` is called with what the store holds, at the start and after a recovery; `changed` when `trouble` does;
    `dropped` with the dead letters that had to go.
    """

    def __init__(
        self,
        path: Path,
        triggers: list[str],
        floor: Floor,
        log: Logger,
        *,
        opened: Callable[[Contents], None],
        changed: Callable[[], None],
        dropped: Callable[[dict[str, Dropped]], None],
        connect: Connect = connect,
    ) -> None:
        self.ready = False
        """The store is open and its contents are known."""
        self._broken = ""  # why it cannot be opened or written
        self._low = ""  # why there is not enough space
        self._path = path
        self._triggers, self._floor, self._log, self._connect = triggers, floor, log, connect
        self._opened, self._changed, self._dropped = opened, changed, dropped
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="delivery")
        self._lock = Ownership(path.with_suffix(".lock"))
        self._store: Store | None = None
        self._base = 0.0  # of the store's clock
        self._group = Group()
        self._due: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._writing = False
        self._delay_s = 0.0
        self._idle = asyncio.Event()
        self._giving_up = False
        self._looking: asyncio.TimerHandle | None = None
        self._opening = self._loop.create_task(self._open(), name="delivery:open")

    @property
    def trouble(self) -> str:
        """Why nothing new should be taken in; empty when all is well."""
        return self._broken or self._low

    @property
    def at(self) -> int:
        """Seconds on the store's clock, which only runs while the store is open."""
        return int(self._base + time.monotonic())

    # --- what the sinks do ---------------------------------------------------------------------------------------

    def group(self, window_s: float) -> Group:
        """The group to add to now; it is committed `window_s` seconds from now at the latest."""
        at = self._loop.time() + window_s
        if self._due is None or (at < self._due_at and not self._delay_s):
            if self._due:
                self._due.cancel()
            self._due_at = at
            self._due = self._loop.call_at(at, self._commit)
        return self._group

    async def call(self, work: Callable[[Store], T]) -> T:
        """Have the store asked, in its thread, once it is open. Raises sqlite3.Error."""
        await asyncio.wait((self._opening,))
        store = self._store
        if store is None:
            raise sqlite3.OperationalError("the store is closed")
        try:
            return await self._loop.run_in_executor(self._thread, work, store)
        except sqlite3.Error as error:
            if is_damage(error) and not self._writing:
                self._failed(error)
            raise

    # --- opening -------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Get the lock, then the database; for ever, as long as it is the device that does not let us."""
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                await self._lock.take()
                contents = await self._loop.run_in_executor(self._thread, self._open_store)
            except (OSError, sqlite3.Error, AgentError) as error:
                self._lock.release()
                self._is_broken(f"the delivery store cannot be opened: {error}")
            else:
                self._begin(contents)
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_RETRY_S)

    def _open_store(self) -> Contents:
        store = Store(self._path, self._triggers, self._connect)
        try:
            contents = store.contents()
        except BaseException:
            store.close()
            raise
        self._store = store
        return contents

    def _begin(self, contents: Contents) -> None:
        self._base = contents.at - time.monotonic()
        if contents.recovered:
            self._log.error(
                "the delivery store was damaged and is set aside; a fresh one has what could be read",
                why=contents.recovered.why,
                aside=str(contents.recovered.aside),
                saved=contents.recovered.rows,
            )
        if contents.abandoned:
            self._log.warning("events of triggers that are gone are dead letters now", events=contents.abandoned)
        self.ready = True
        self._opened(contents)
        self._is_broken("")
        self._look_at_space()
        self._settled()

    # --- committing ----------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        self._due = None
        if self._writing or self._store is None:
            return  # looked at again when that is over
        group, self._group = self._group, Group()
        if group.empty:
            self._settled()
            return
        self._writing = True
        self._idle.clear()
        at = self.at
        job = self._loop.run_in_executor(self._thread, self._write, self._store, group, at)
        job.add_done_callback(lambda done: self._committed(group, done))

    def _write(self, store: Store, group: Group, at: int) -> tuple[dict[str, Dropped], int]:
        """In the thread. Dead letters that went, and free bytes of the disk less what must stay free."""
        return store.commit(group, at), self._spare_bytes()

    def _committed(self, group: Group, done: asyncio.Future[tuple[dict[str, Dropped], int]]) -> None:
        self._writing = False
        error = done.exception()
        if error is None:
            self._delay_s = 0.0
            self._is_broken("")
            dropped, spare = done.result()
            if dropped:
                self._dropped(dropped)
            self._see_space(spare)
            for then in group.then:
                then(True)
            self._settled()
            return
        group.follow(self._group)
        self._group = group
        if not isinstance(error, sqlite3.Error | OSError):
            raise error
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self._is_broken("the delivery store is damaged and is being replaced")
            self._writing = True
            self._loop.run_in_executor(self._thread, self._replace).add_done_callback(self._replaced)
            return
        self._is_broken(f"the delivery store cannot be written: {error}")
        if self._giving_up:
            self._give_up()
            return
        self._delay_s = min(max(2 * self._delay_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
        self.group(self._delay_s)

    def _replace(self) -> Contents:
        assert self._store is not None
        self._store.recover()
        return self._store.contents()

    def _replaced(self, done: asyncio.Future[Contents]) -> None:
        self._writing = False
        error = done.exception()
        if error is not None:
            self._is_broken(f"the delivery store cannot be replaced: {error}")
            self.group(_LONGEST_RETRY_S)
            return
        self._begin(done.result())
        self.group(0)

    def _settled(self) -> None:
        """Nothing is being written: go on with what has come meanwhile, or say so."""
        if self._due is None and not self._group.empty:
            self.group(0)
        elif self._group.empty and not self._writing:
            self._idle.set()

    # --- space ---------------------------------------------------------------------------------------------------

    def _spare_bytes(self) -> int:
        status = os.statvfs(self._path.parent)
        total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        return int(free - max(self._floor.bytes, total * self._floor.percent / 100))

    def _look_at_space(self) -> None:
        self._looking = None
        try:
            self._see_space(self._spare_bytes())
        except OSError as error:
            self._is_broken(f"the delivery store's disk cannot be asked for its space: {error}")

    def _see_space(self, spare: int) -> None:
        low = f"the disk is nearly full: {-spare} bytes less are free than must stay free" if spare < 0 else ""
        if low and self._looking is None:
            self._looking = self._loop.call_later(_LOOK_AGAIN_S, self._look_at_space)
        if bool(low) != bool(self._low):
            self._log.log("WARNING" if low else "INFO", "space for the delivery store", trouble=low or "none any more")
            self._low = low
            self._changed()

    def _is_broken(self, why: str) -> None:
        if why != self._broken:
            self._log.log("ERROR" if why else "INFO", "delivery store", trouble=why or "none any more")
            self._broken = why
            self._changed()

    # --- the end -------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """The processor stops: what cannot be written now will not be waited for."""
        self._giving_up = True
        if self._delay_s and not self._writing:
            self._give_up()

    def _give_up(self) -> None:
        group, self._group = self._group, Group()
        for then in group.then:
            then(False)
        self._settled()

    async def close(self) -> None:
        """Write what is left, close the database, let go of the lock."""
        self._giving_up = True
        self._opening.cancel()
        await asyncio.wait((self._opening,))
        await self._loop.run_in_executor(self._thread, _nothing)  # an opening that was under way is over then
        if self._store is None:
            self._give_up()
        while self._store is not None and (self._writing or not self._group.empty):
            self._idle.clear()
            self.group(0)
            await self._idle.wait()
        for timer in (self._due, self._looking):
            if timer:
                timer.cancel()
        store, self._store = self._store, None
        if store is not None:
            await self._loop.run_in_executor(self._thread, store.close)
        self._thread.shutdown()
        self._lock.release()


def _nothing() -> None:
    return
