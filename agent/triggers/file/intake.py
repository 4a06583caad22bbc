"""Files mode: takes candidates from the tree, waits until they are complete, hands them over, settles them.

Flow: Tree -> Intake -> [disk thread: Reader] -> sink -> [disk thread: Disposal].

A path is at one place at a time: waiting (a timer runs until its writer has been quiet, or must have closed it), ready
(in line), or in hand (being read, handled or settled). News about a path in hand is kept and looked at after. The line
is bounded by the files on the disk, what is in hand by `maxInFlight` and the sink. One thread does all disk work of the
trigger: a slow disk delays files, never the loop.

Promise: at least once. Between a handler's success and the write that remembers it lies one hop to the disk thread; a
process killed in there hands the file over again. Stopped in order, nothing is handed over twice.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TypeVar

from agent.model.event import Outcome
from agent.model.sink import Sink
from agent.triggers.file.disposal import Disposal, Finished, fate_of
from agent.triggers.file.failures import Failures
from agent.triggers.file.ledger import SYNC_S, Entry, Fate, Ledger, key_of
from agent.triggers.file.reading import Fresh, Known, Nothing, Patience, Reader, Seen, Verdict
from agent.triggers.file.selection import Selection
from agent.triggers.file.spec import FileSpec

T = TypeVar("T")


class Place(Enum):
    """Where a candidate is."""

    WAITING = "waiting"
    READY = "ready"
    IN_HAND = "in hand"


@dataclass(slots=True)
class Candidate:
    """A path that may hold a new file. Times on the loop's clock."""

    path: str
    since: float
    patience: Patience
    place: Place = Place.WAITING
    due: float = 0.0
    timer: asyncio.TimerHandle | None = None
    again: bool = False  # touched while in hand
    open: bool = False  # waiting for its writer to close it


@dataclass(slots=True)
class Finds:
    """What a walk has found: new files to look at, and the keys of all."""

    wanted: Callable[[int], bool]
    done: Callable[[Finds, bool], None]
    files: list[tuple[int, str, int]] = field(default_factory=list)  # mtime, path, key
    keys: set[int] = field(default_factory=set)

    def see(self, path: str, status: os.stat_result) -> None:
        key = key_of(status)
        self.keys.add(key)
        if self.wanted(key):
            self.files.append((status.st_mtime_ns, path, key))

    def over(self, whole: bool) -> None:
        self.done(self, whole)


class Intake:
    """The candidates of one trigger. Implements `tree.Watcher`; `pump` is its task, `close` its end."""

    def __init__(self, spec: FileSpec, selection: Selection, sink: Sink) -> None:
        self._spec, self._sink = spec, sink
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger(sink.state_dir / "handled.log")
        if self._ledger.damaged:
            sink.log.warning("damaged records in the memory of handled files", records=self._ledger.damaged)
        self._reader = Reader(spec, selection, self._ledger)
        self._disposal = Disposal(spec, selection, self._ledger, self._reader)
        self._failures = Failures(spec, sink)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix=f"disk-{sink.name}")
        self._candidates: dict[str, Candidate] = {}
        self._ready: deque[Candidate] = deque()
        self._moved_on = asyncio.Event()  # something became ready, or a place in hand became free
        self._in_hand: dict[int, list[str]] = {}  # key of the content -> other names of it that wait for its end
        self._finished: list[tuple[Candidate, Seen, Outcome]] = []
        self._settling: asyncio.Future[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None

    # What the tree tells

    def touched(self, path: str, complete: bool) -> None:
        """A file may be new (`complete`: its writer has closed it, or it was moved in)."""
        candidate = self._candidates.get(path)
        if candidate is None:
            candidate = Candidate(path, self._loop.time(), Patience(complete, overdue=False))
            self._candidates[path] = candidate
        candidate.patience.complete = complete
        if candidate.place is Place.IN_HAND:
            candidate.again = True
        elif complete:
            self._make_ready(candidate)
        else:
            self._make_wait(candidate)

    def survey(self) -> Finds:
        """For a walk: what is neither remembered nor to be removed is not shown."""
        return Finds(self._is_wanted, self._surveyed)

    def _is_wanted(self, key: int) -> bool:
        fate = self._ledger.fate(key)
        return fate is None or self._disposal.removes(fate)

    def _surveyed(self, survey: Finds, whole: bool) -> None:
        """Put what a walk found in line, oldest first."""
        if whole:
            self._on_disk(self._forget_vanished, survey.keys)
        if whole and self._ledger.fresh:
            new_only = self._spec.initial == "new"
            self._on_disk(self._begin, survey.files if new_only else [])
            if new_only:
                return
        for _, path, _ in sorted(survey.files):
            candidate = self._candidates.get(path)
            if candidate is None:
                candidate = Candidate(path, self._loop.time(), Patience(complete=False, overdue=False))
                self._candidates[path] = candidate
                self._make_ready(candidate)
            elif candidate.open and candidate.place is Place.WAITING:  # where no close is told of
                self._make_ready(candidate)

    # The line

    def _make_ready(self, candidate: Candidate) -> None:
        if candidate.timer:
            candidate.timer.cancel()
            candidate.timer = None
        if candidate.place is not Place.READY:
            candidate.place = Place.READY
            self._ready.append(candidate)
            self._moved_on.set()

    def _make_wait(self, candidate: Candidate) -> None:
        """Look again when it has been quiet for `settle`, but not later than `settleMax` after the first news."""
        candidate.open = False
        self._wait_until(candidate, min(self._loop.time() + self._spec.settle, self._limit(candidate)))

    def _wait_for_close(self, candidate: Candidate) -> None:
        """Somebody has it open: look again when there is news, or `settleMax` is over."""
        candidate.open = True
        self._wait_until(candidate, self._limit(candidate))

    def _limit(self, candidate: Candidate) -> float:
        """When it is taken as it is."""
        return candidate.since + self._spec.settle_max if self._spec.settle_max else math.inf

    def _wait_until(self, candidate: Candidate, due: float) -> None:
        """The timer is not moved at each news, only when it would run out too late, or has run out too early."""
        candidate.due = due
        candidate.place = Place.WAITING  # if it was in line, its place there counts no more
        if candidate.timer and candidate.timer.when() > due:
            candidate.timer.cancel()
            candidate.timer = None
        if candidate.timer is None and due < math.inf:
            candidate.timer = self._loop.call_at(due, self._waited, candidate)

    def _waited(self, candidate: Candidate) -> None:
        candidate.timer = None
        if candidate.due > self._loop.time():
            self._wait_until(candidate, candidate.due)
            return
        candidate.patience.overdue = self._loop.time() >= self._limit(candidate)
        self._make_ready(candidate)

    async def pump(self) -> None:
        """Take candidates in line, as many at once as `maxInFlight` and the sink allow, until cancelled."""
        while True:
            while not self._ready or len(self._in_hand) >= self._spec.max_in_flight:
                self._moved_on.clear()
                await self._moved_on.wait()
            await self._sink.room()
            candidate = self._ready.popleft()
            if candidate.place is Place.READY:
                candidate.place = Place.IN_HAND
                self._take(candidate, await self._on_disk(self._look, candidate))

    def _look(self, candidate: Candidate) -> Verdict:
        """In the disk thread."""
        verdict = self._reader.look(candidate.path, candidate.patience)
        if isinstance(verdict, Known):
            self._disposal.retry(Finished(verdict.seen, verdict.fate))
        elif isinstance(verdict, Fresh) and self._spec.promise == "at-most-once":
            self._disposal.remember([(verdict.seen.key, verdict.seen.entry(self._reader.volume, Fate.HANDLED))])
        return verdict

    def _take(self, candidate: Candidate, verdict: Verdict) -> None:
        if isinstance(verdict, Fresh):
            self._hand_over(candidate, verdict)
        elif verdict is Nothing.UNSETTLED or (verdict is Nothing.OPEN and candidate.again):
            candidate.again = False  # what is new is seen by the look that comes after the wait
            self._make_wait(candidate)
        elif verdict is Nothing.OPEN:
            self._wait_for_close(candidate)
        else:
            if isinstance(verdict, Nothing):
                self._sink.count(verdict.value)
            self._let_go(candidate)

    def _hand_over(self, candidate: Candidate, fresh: Fresh) -> None:
        names = self._in_hand.get(fresh.seen.key)
        if names is not None:  # a hard link or a new name of what is in hand: wait for what becomes of that
            names.append(candidate.path)
            self._let_go(candidate)
            return
        self._in_hand[fresh.seen.key] = []
        if candidate.patience.unsettled:
            self._sink.count("unsettled")
        self._sink.deliver(fresh.event, partial(self._done, candidate, fresh.seen))

    def _let_go(self, candidate: Candidate) -> None:
        """The path is no candidate any more, unless something happened to it meanwhile."""
        del self._candidates[candidate.path]
        if candidate.again:
            self.touched(candidate.path, candidate.patience.complete)

    # The end of an event

    def _done(self, candidate: Candidate, seen: Seen, outcome: Outcome) -> None:
        self._finished.append((candidate, seen, outcome))
        if self._settling is None:
            self._settle()

    def _settle(self) -> None:
        """Remove or remember all that has finished; what finishes meanwhile is the next batch."""
        batch, self._finished = self._finished, []
        items = [Finished(seen, fate) for _, seen, outcome in batch if (fate := fate_of(outcome)) is not None]
        self._settling = self._on_disk(self._disposal.settle, items)
        self._settling.add_done_callback(lambda _: self._settled(batch, items))

    def _settled(self, batch: list[tuple[Candidate, Seen, Outcome]], items: list[Finished]) -> None:
        self._settling = None
        ends = {item.seen.path: item for item in items}
        for candidate, seen, outcome in batch:
            self._sink.count("handled" if outcome.ok else "failed")
            end = ends.get(candidate.path)
            candidate.again |= end is not None and end.changed
            if end and end.fate is Fate.FAILED:
                self._failures.file(candidate.path, outcome, end.moved_to)
            self._let_go(candidate)
            for name in self._in_hand.pop(seen.key):
                self.touched(name, complete=True)
        self._count_disposal()
        self._moved_on.set()
        if self._finished:
            self._settle()
        elif self._sync_timer is None:
            self._sync_timer = self._loop.call_later(SYNC_S, self._sync)

    def _count_disposal(self) -> None:
        counts, self._disposal.counts = self._disposal.counts, type(self._disposal.counts)()
        for name, n in counts.items():
            self._sink.count(name, n)

    # Memory, in the disk thread

    def _begin(self, files: list[tuple[int, str, int]]) -> None:
        """The first walk ever: with `initial: new`, what was there before is remembered as seen."""
        volume = self._reader.volume
        self._disposal.remember([(key, Entry(volume, 0, Fate.SEEN)) for _, _, key in files])
        self._quietly(self._ledger.mark_started)

    def _forget_vanished(self, present: set[int]) -> None:
        self._quietly(partial(self._ledger.keep_only, present, self._reader.find_volume()))

    def _sync(self) -> None:
        self._sync_timer = None
        self._on_disk(self._quietly, self._ledger.sync)

    def _quietly(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError:
            self._disposal.counts["remember_failed"] += 1

    def _on_disk(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._disk, call, *arguments)

    async def close(self) -> None:
        """After the sink has drained: settle what finished, stop timers and thread, close the memory."""
        try:
            while self._settling or self._finished:
                await asyncio.sleep(0) if self._settling is None else await asyncio.wait([self._settling])
        finally:
            for candidate in self._candidates.values():
                if candidate.timer:
                    candidate.timer.cancel()
            if self._sync_timer:
                self._sync_timer.cancel()
            self._disk.shutdown()
            self._ledger.close()
