"""What the sinks of triggers with a journal and of those with ids have in common: their events outlive the processor.

Flow: trigger -> [durable sink] -> ids (seen before?) -> a journal, or the workers at once.

Promises
- Nothing is taken in before the store is open; what comes earlier waits for that.
- With ids `done` of a repeated event gets the outcome of the first one, without running the handler.
- Without room or space, or with a disk that refuses, `full` is true and `dispatch` answers NO_WORKER.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Coroutine
from typing import Any

from agent.model.event import NOW, Event, Outcome, Result
from agent.model.sink import Done
from agent.model.spec import TriggerSpec
from agent.processor.delivery.codec import Damaged, decode_reply
from agent.processor.delivery.group import Group
from agent.processor.delivery.ids import NO_ANSWER, Ids
from agent.processor.delivery.pick import id_picker, mark_of
from agent.processor.delivery.store import Kept
from agent.processor.delivery.terms import window_of
from agent.processor.sink import TriggerSink

_NOT_KEPT = b'{"error": "this request was handled before; its answer was too large to keep"}'


class DurableSink(TriggerSink):
    """Implements agent.model.sink.Sink. Subclasses say how an event is `accept`ed that is not known yet."""

    durable = True

    def __init__(self, spec: TriggerSpec, *arguments: Any, **more: Any) -> None:
        super().__init__(spec, *arguments, **more)
        self._window_s = window_of(spec)
        with_ids = spec.promise == "effectively-once"
        self._id_of = id_picker(spec.id_from, spec.default_id_from) if with_ids else None
        self._ids: Ids | None = None
        self._early: list[tuple[Event, Done, bool]] = []
        self._open = False
        self._waiters: dict[bytes, list[Done] | None] = {}  # marks under way; None: acknowledged, and in the journal
        self._trouble = ""
        self._was_up = False  # before the trouble
        self._tasks: set[asyncio.Task[None]] = set()

    def _accept(self, event: Event, done: Done, mark: bytes | None, patient: bool) -> None:
        """Take in an event. `patient`: it was delivered, not dispatched."""
        raise NotImplementedError

    # --- the store ------------------------------------------------------------------------------------------------

    def opened(self, kept: Kept) -> None:
        self._open = True
        if self._id_of:
            self._ids = Ids(self._spec.ids, kept)
        early, self._early = self._early, []
        for event, done, patient in early:
            self._admit(event, done, patient)
        self._wake()

    def store_changed(self, trouble: str) -> None:
        statistics = self.statistics
        if trouble:
            self._was_up = statistics.up if not self._trouble else self._was_up
            self.count("store_troubles")
            self.down(trouble)
        elif self._trouble and statistics.why == self._trouble and self._was_up:
            self.up(statistics.address)
        self._trouble = trouble
        self._wake()

    def _group(self) -> Group:
        return self._delivery.commits.group(self._window_s)

    # --- in -------------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return not self._open or bool(self._delivery.commits.trouble) or super().full

    def dispatch(self, event: Event, done: Done) -> None:
        if self._trouble or (self._open and self.full) or len(self._early) >= self._spec.queue_size:
            self.count("refused")
            self._loop.call_soon(done, Outcome(Result.NO_WORKER))
            return
        self._take(event, done, patient=False)

    def deliver(self, event: Event, done: Done) -> None:
        self._take(event, done, patient=True)

    def _take(self, event: Event, done: Done, patient: bool) -> None:
        if event.timestamp_ns == NOW:
            event.timestamp_ns = time.time_ns()
        self._in_flight += 1
        if self._open:
            self._admit(event, done, patient)
        else:
            self._early.append((event, done, patient))

    def _admit(self, event: Event, done: Done, patient: bool) -> None:
        mark = self._mark_of(event)
        if mark is None or not self._is_repeated(mark, done, patient):
            self._accept(event, done, mark, patient)

    def _answer(self, done: Done, outcome: Outcome) -> None:
        """The source is told."""
        self._in_flight -= 1
        self._wake()
        done(outcome)

    def _wake(self) -> None:
        if self._waiting:
            self._changed.set()

    # --- ids ------------------------------------------------------------------------------------------------------

    def _mark_of(self, event: Event) -> bytes | None:
        if self._id_of is None:
            return None
        id = self._id_of(event)
        if not id:
            self.count("without_id")
            return None
        return mark_of(self.name, id)

    def _is_repeated(self, mark: bytes, done: Done, patient: bool) -> bool:
        """Known already: then `done` gets, now or later, what the first one got. Else the mark is taken."""
        assert self._ids is not None
        answered = self._ids.finished.get(mark)
        if answered is not None:
            self.count("duplicates")
            if not patient and not self.journalled:
                self._spawn(self._answer_again(done, answered))
            else:
                self._loop.call_soon(self._answer, done, accepted())
            return True
        if mark not in self._waiters:
            self._waiters[mark] = []
            return False
        self.count("duplicates")
        waiters = self._waiters[mark]
        if waiters is None:
            self._loop.call_soon(self._answer, done, accepted())
        else:
            waiters.append(done)
        return True

    async def _answer_again(self, done: Done, seq: int) -> None:
        """The reply that was kept."""
        outcome = Outcome(Result.REPLIED, 409, "application/json", [], _NOT_KEPT)
        try:
            record = await self._delivery.commits.call(lambda store: store.answer(seq)) if seq != NO_ANSWER else None
            if record:
                outcome = decode_reply(record)
                outcome.headers.append(("Idempotent-Replayed", "true"))
        except sqlite3.Error:
            outcome = Outcome(Result.NO_WORKER)
        except Damaged:
            pass
        self._answer(done, outcome)

    def _tell_waiters(self, mark: bytes | None, outcome: Outcome) -> None:
        """The mark is free again, or known for good."""
        for done in (self._waiters.pop(mark, None) or ()) if mark is not None else ():
            self._answer(done, outcome)

    def _known(self, mark: bytes, written: bool) -> None:
        """The mark of an event that is over is on the disk."""
        assert self._ids is not None
        if written:
            self._ids.know(mark)
        self._waiters.pop(mark, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=f"delivery:{self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def accepted() -> Outcome:
    """On the disk, or handled before; what came of it is told elsewhere."""
    return Outcome(Result.REPLIED, 202)
