"""The outbox of one function: what its handlers publish is stored with the end of their event, and sent when it can be.

Flow: lane -> published -> [outbox] -> targets -> bindings.

Promises
- An event counts as handled once what it has published is stored: then its source is told. Where the sink writes to the
  same store (a journal, ids), both are one transaction, so that a crash neither loses nor doubles a publication.
- What an event published whose handler failed is forgotten, but for what it published `now`.
- With `whenFull: block` an event that finds no room waits, and the workers get nothing more until there is some.
- A function that never publishes costs no connection, no task and no disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.model.errors import AgentError
from agent.model.event import Outcome, Result
from agent.model.outlet import Message, Parcel
from agent.model.registry import binding_kind
from agent.model.spec import Binding, FunctionSpec, TriggerSpec
from agent.processor.delivery.delivery import Delivery
from agent.processor.job import Job
from agent.processor.outbox.disk import Disk
from agent.processor.outbox.published import MOST_BYTES, Published, message_of
from agent.processor.outbox.target import Target

if TYPE_CHECKING:
    from loguru import Logger

_LAST_S = 1.0  # for what is waiting when the processor ends and its target is connected
_LONGEST_DELAY_S = 30.0
_OPEN_AGAIN_S = 1.0


@dataclass(slots=True)
class _Entry:
    """What is to be stored together; `job`: the event that ends with it."""

    messages: list[tuple[str, Message]]
    job: Job | None = None
    outcome: Outcome | None = None

    @property
    def size(self) -> int:
        return sum(len(message.body) for _, message in self.messages)


class Outbox:
    """`hold` is called with True when the workers are to be given nothing more, with False when they are again."""

    def __init__(
        self, function: str, spec: FunctionSpec, delivery: Delivery, log: Logger, hold: Callable[[bool], None]
    ) -> None:
        self._function, self._spec, self._delivery, self._log, self._hold = function, spec, delivery, log, hold
        self._disk = Disk(delivery) if spec.outbox.durable else None
        self._ways: dict[str, Binding | TriggerSpec] = {
            name: item for name, item in spec.triggers.items() if item.kind == "mqtt"
        }
        self._first = next(iter(self._ways), "")
        self._ways |= spec.bindings
        self._most_bytes = min(MOST_BYTES, spec.outbox.max_bytes)
        self._targets = {name: Target(name, function, spec.outbox, self._disk, log, self._pump) for name in self._ways}
        self._held: deque[_Entry] = deque()
        self._held_bytes = 0
        self._holding = False
        self._started = False
        self._opened = asyncio.Event()
        if self._disk is None:
            self._opened.set()
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._emptied = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.discarded = Counter[str]()  # publications that never came into the outbox

    # --- start and end -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The sinks are there. Bindings connect at once; a trigger's broker when something is to be sent there."""
        self._started = True
        if not self._ways:
            return
        self._delivery.listeners.append(self)
        for name, way in self._ways.items():
            self._spawn(self._deliver(name, way), f"outbox:{name}")
        for name in self._spec.bindings:
            self._targets[name].wanted.set()
        if self._disk and (self._spec.bindings or self._held or self._delivery.present):
            self._begin_opening()

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_opening(self) -> None:
        if self._started and self._opening is None and not self._stopping:
            self._opening = self._loop.create_task(self._register(), name="outbox:open")

    async def _register(self) -> None:
        import sqlite3  # late: few functions publish

        assert self._disk is not None
        while True:
            try:
                stored = await self._disk.register(list(self._targets))
                break
            except sqlite3.Error as error:
                self._log.warning("the outbox cannot be opened now", reason=str(error))
                await asyncio.sleep(_OPEN_AGAIN_S)
        for name, item in stored.items():
            if name in self._targets:
                self._targets[name].opened(item)
            elif item.count:
                await self._gone(name, item.target, item.count)
        self._opened.set()
        self._pump()

    async def _gone(self, name: str, number: int, count: int) -> None:
        """A version of the function without that binding: kept for one that has it again, as long as anything is."""
        import sqlite3

        assert self._disk is not None
        try:
            expired = await self._disk.expire(number, int(self._disk.at - self._spec.outbox.max_age))
        except sqlite3.Error:
            expired = 0
        if count > expired:
            self._log.warning("messages wait for a binding that is gone", binding=name, messages=count - expired)

    def hurry(self) -> None:
        """The processor stops: an event that finds no room is left to its source."""
        self._stopping = True
        held, self._held = self._held, deque()
        for entry in held:
            self._left(entry)
        self._let_go()

    async def close(self) -> None:
        """After the workers have ended. What could not be sent now is sent by who comes next, if it is on the disk."""
        self.hurry()
        if self._sending:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._until_empty(), _LAST_S)
        tasks = [*self._tasks, *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for target in self._targets.values():
            target.close()

    @property
    def _open(self) -> bool:
        return self._opened.is_set()

    @property
    def _sending(self) -> bool:
        return any(target.count and target.is_up for target in self._targets.values())

    async def _until_empty(self) -> None:
        while self._sending:
            self._emptied.clear()
            await self._emptied.wait()

    # --- what the lanes call -----------------------------------------------------------------------------------------

    def published(
        self, of: Published | None, target: str, attributes: list[tuple[str, str]], body: bytes
    ) -> Published | None:
        """One PUBLISH record of the event `of` (None: no event is in hand). Returns `of`, made where it was missing."""
        target = target or self._first
        if target not in self._targets:
            return self._failed(of, f"there is no binding {target!r}")
        try:
            message, now = message_of(attributes, body)
        except ValueError as error:
            return self._failed(of, str(error))
        if not now and of is not None:
            of.add(target, message, self._most_bytes)
            return of
        if self._held_bytes > self._most_bytes:  # nothing holds up a task in the background but this
            self.discarded["full"] += 1
            return of and self._failed(of, "the outbox is full, and too much waits for room already")
        self._queue(_Entry([(target, message)]))
        return of

    def _failed(self, of: Published | None, why: str) -> Published | None:
        if of is None:
            self.discarded["invalid"] += 1
        else:
            of.problem = of.problem or why
        return of

    def finish(self, job: Job, outcome: Outcome, published: Published) -> None:
        """The handler has replied: its event ends once what it has published is stored."""
        if published.problem:
            outcome = Outcome(Result.REPLIED, 500, "text/plain", [], published.problem.encode(), outcome.logs)
        if not outcome.ok:
            self.discarded["failed"] += len(published.messages)
            job.sink.finish(job, outcome)
        elif self._stopping and self._held_back(published.messages):
            self._left(_Entry(published.messages, job, outcome))
        else:
            self._queue(_Entry(published.messages, job, outcome))

    # --- storing -----------------------------------------------------------------------------------------------------

    def _queue(self, entry: _Entry) -> None:
        if self._disk and not self._open:
            self._begin_opening()
        self._held.append(entry)
        self._held_bytes += entry.size
        self._pump()

    def _pump(self) -> None:
        """Store what there is room for, in order. Called whenever there may be more room."""
        while self._held and self._open and not self._held_back(self._held[0].messages):
            entry = self._held.popleft()
            self._held_bytes -= entry.size
            self._store(entry)
        if self._held and not self._holding and not self._stopping:
            self._holding = True
            self._hold(True)
        elif not self._held:
            self._let_go()
        self._emptied.set()

    def _let_go(self) -> None:
        if self._holding:
            self._holding = False
            self._loop.call_soon(self._hold, False)

    def _held_back(self, messages: list[tuple[str, Message]]) -> bool:
        """They have to wait."""
        if not self._open:
            return True
        if self._spec.outbox.when_full != "block" or not messages:
            return False
        if self._disk and self._disk.trouble:
            return True
        sizes: Counter[str] = Counter()
        for name, message in messages:
            sizes[name] += self._targets[name].size_of(message)
        # More than all of it at once: only into an empty one.
        return any(not self._targets[name].has_room(size) and self._targets[name].count for name, size in sizes.items())

    def _store(self, entry: _Entry) -> None:
        parcels: list[tuple[Target, int, Parcel]] = []
        for name, message in entry.messages:
            target = self._targets[name]
            size = target.size_of(message)
            if self._spec.outbox.when_full == "block" or self._accepts(target, size):
                parcels.append((target, *target.parcel(message, size)))
        then = partial(self._stored, entry, parcels)
        if self._disk is None:
            then(True)
            return
        rows = [(number, parcel) for _, number, parcel in parcels]
        self._disk.insert(rows, self._spec.outbox.commit_window, then)
        job = entry.job
        if job is not None and entry.outcome is not None and type(job) is not Job:
            # Its end is written to the store as well (a journal, ids): now, and it is the same transaction.
            job.sink.finish(job, entry.outcome)

    def _accepts(self, target: Target, size: int) -> bool:
        """Under a policy that drops: is there room, or is some made?"""
        trouble = bool(self._disk and self._disk.trouble)
        oldest = self._spec.outbox.when_full == "drop-oldest"
        if not trouble and target.has_room(size):
            return True
        if oldest and (target.make_room(size, "disk") if trouble else target.make_room(size)):
            return True
        target.dropped["disk" if trouble else "newest"] += 1
        return False

    def _stored(self, entry: _Entry, parcels: list[tuple[Target, int, Parcel]], written: bool) -> None:
        job, outcome = entry.job, entry.outcome
        for target, _, parcel in parcels:
            if written:
                target.admit(parcel)
            else:
                target.forget(parcel)
        if job is not None and outcome is not None:
            waits = self._disk is None or type(job) is Job
            if not written:
                outcome.result = Result.STOPPED  # also for a sink that is told of the same commit after us
            if waits:
                job.sink.finish(job, outcome)
        for target in {target for target, _, _ in parcels}:
            target.ready()

    def _left(self, entry: _Entry) -> None:
        """Nothing was stored: the source keeps the event, or is told that it was not handled."""
        self.discarded["stopped"] += len(entry.messages)
        if entry.job is not None:
            entry.job.sink.finish(entry.job, Outcome(Result.STOPPED))

    # --- what the store tells ----------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The store is open; what is in it is asked for when something is."""
        if self._open and self._disk:
            self._spawn(self._repair(), "outbox:repair")
        elif self._targets and self._disk:
            self._begin_opening()

    async def _repair(self) -> None:
        """The store was damaged and replaced by what could be saved: the targets' own rows have to be there."""
        assert self._disk is not None
        await self._disk.register(list(self._targets))

    def store_changed(self, trouble: str) -> None:
        """Whether there is room may have changed."""
        self._pump()

    # --- delivering --------------------------------------------------------------------------------------------------

    async def _deliver(self, name: str, way: Binding | TriggerSpec) -> None:
        """Run the target's binding for ever, from when there is something to deliver."""
        target = self._targets[name]
        await target.wanted.wait()
        await self._opened.wait()  # not before a predecessor has let go of the store, and of its connection
        delay_s = 0.5
        while True:
            try:
                await binding_kind(way.kind).deliver(way, target)
                return
            except AgentError as error:
                target.down(str(error))
            except Exception as error:  # a fault of ours in one binding must not stop the function
                self._log.opt(exception=error).error("binding failed", binding=name)
                target.down(f"internal error: {error}")
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def statistics(self) -> dict[str, Any]:
        """By target, for those that something was ever published to, and bindings."""
        return {
            "targets": {name: item.statistics() for name, item in self._targets.items() if item.wanted.is_set()},
            "held": len(self._held),
            "trouble": self._disk.trouble if self._disk and self._open else "",
            "discarded": dict(self.discarded),
        }
