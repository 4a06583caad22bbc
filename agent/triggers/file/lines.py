"""Lines mode: follows growing files and hands over one event a line, through rotation, truncation and restarts.

Flow: Tree -> Lines -> [disk thread: Rotation, Follower.read] -> sink; acknowledged lines -> [disk thread: Positions].

One task, `pump`, owns the followers: it has changed paths examined, has a file read on, and hands over what was read.
Lines of one file are handed over in their order; with more than one in flight (`maxInFlight`) they may end in another.

Promise: at least once. The place up to which every line is handled is written `SAVE_S` or `SAVE_LINES` later, whichever
comes first; a process killed in between hands those lines over again. Stopped in order, none twice. At most once: the
place is written before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from agent.model.event import Event, Outcome, Result
from agent.model.sink import Sink
from agent.triggers.file.failures import Failures
from agent.triggers.file.follower import Follower, Line, Progress
from agent.triggers.file.positions import Position, Positions
from agent.triggers.file.reading import as_text
from agent.triggers.file.rotation import Change, RotatedNames, Rotation
from agent.triggers.file.selection import Selection
from agent.triggers.file.spec import FileSpec

SAVE_S = 0.1
SAVE_LINES = 500
T = TypeVar("T")


@dataclass(slots=True)
class Found:
    """One file as a walk has seen it."""

    mtime_ns: int
    path: str
    inode: int
    size: int


@dataclass(slots=True)
class Finds:
    """What a walk has found."""

    done: Callable[[Finds, bool], None]
    files: list[Found] = field(default_factory=list)

    def see(self, path: str, status: os.stat_result) -> None:
        self.files.append(Found(status.st_mtime_ns, path, status.st_ino, status.st_size))

    def over(self, whole: bool) -> None:
        self.done(self, whole)


class Lines:
    """The followed files of one trigger. Implements `tree.Watcher`; `pump` is its task, `close` its end."""

    def __init__(self, spec: FileSpec, selection: Selection, sink: Sink) -> None:
        self._spec, self._selection, self._sink = spec, selection, sink
        self._loop = asyncio.get_running_loop()
        self.names = RotatedNames(selection, spec.rotated)
        self._positions = Positions(sink.state_dir / "positions.log")
        if self._positions.damaged:
            sink.log.warning("damaged records in the memory of followed files", records=self._positions.damaged)
        self._rotation = Rotation(spec, self.names, self._positions)
        self._failures = Failures(spec, sink)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix=f"disk-{sink.name}")
        self._changes: dict[str, Change] = {}
        self._walked = False
        self._present: set[int] | None = None  # inodes of a whole walk, to tidy up after
        self._unread: deque[Follower] = deque()  # may have more to read
        self._finishing: set[Follower] = set()  # their last line was quiet for long enough
        self._partial: dict[Follower, asyncio.TimerHandle] = {}
        self._moved_on = asyncio.Event()
        self._free = asyncio.Event()  # a line has ended
        self._in_hand = 0
        self._unsaved: set[Follower] = set()
        self._unsaved_lines = 0
        self._save_timer: asyncio.TimerHandle | None = None
        self._once = spec.promise == "at-most-once"
        self._with_ids = spec.promise == "effectively-once"

    # What the tree tells

    def touched(self, path: str, complete: bool) -> None:
        """Something was written under this name, or it now is another file."""
        change = self._change(path)
        change.sure |= complete

    def survey(self) -> Finds:
        return Finds(self._surveyed)

    def _surveyed(self, survey: Finds, whole: bool) -> None:
        """Examine what is there and not followed under that name, in the order it was written."""
        quiet_ns = time.time_ns() - int(self._spec.settle * 1e9)
        for found in sorted(survey.files, key=lambda item: (item.mtime_ns, item.path)):
            if self._walked and self._has_read(found):
                continue
            change = self._change(found.path)
            change.sure |= found.mtime_ns < quiet_ns
            change.first = whole and self._positions.fresh
            change.known = self._positions.get(found.inode) is not None
        if whole:
            self._walked = True
            self._present = {found.inode for found in survey.files}
            self._moved_on.set()

    def _change(self, path: str) -> Change:
        change = self._changes.get(path)
        if change is None:
            change = self._changes[path] = Change(path, sure=False)
            self._moved_on.set()
        return change

    def _has_read(self, found: Found) -> bool:
        """Nothing to examine: followed under this name, or handled to its end and closed."""
        follower = self._rotation.followers.get(found.inode)
        if follower:
            return follower.path == found.path
        place = self._positions.get(found.inode)
        return place is not None and place.offset == found.size

    # The task

    async def pump(self) -> None:
        """Examine, read and hand over until cancelled."""
        while True:
            self._moved_on.clear()
            if self._changes or self._present is not None:
                await self._examine_changes()
            elif follower := self._next():
                await self._serve(follower)
            else:
                await self._moved_on.wait()

    async def _examine_changes(self) -> None:
        changes, self._changes = self._changes, {}
        present, self._present = self._present, None
        in_order = sorted(changes.values(), key=lambda item: not item.known)
        for follower in await self._on_disk(self._examine, in_order, present):
            self._read_on(follower)

    def _examine(self, changes: list[Change], present: set[int] | None) -> list[Follower]:
        """In the disk thread. The followers to read."""
        found: list[Follower] = []
        for change in changes:
            try:
                found += self._rotation.examine(change)
            except FileNotFoundError:
                continue  # its new name is, or will be, a change of its own
            except OSError:
                self._count_later("unreadable")
        if present is not None:
            found += self._tidy(present)
        self._remember(self._rotation.news)
        self._rotation.news = []
        return found

    def _tidy(self, present: set[int]) -> list[Follower]:
        """After a whole walk: let go of read files that were rotated or moved away, look at all others once more."""
        try:
            self._positions.mark_started()
            self._positions.keep_only(present | self._rotation.followers.keys())
        except OSError:
            self._count_later("remember_failed")
        for follower in list(self._rotation.followers.values()):
            away = follower.inode not in present or follower.path != follower.active
            if away and follower.idle and follower.at_end and follower not in self._unsaved:
                self._rotation.drop(follower)
        return list(self._rotation.followers.values())

    def _read_on(self, follower: Follower) -> None:
        """Put a file in line."""
        if follower not in self._unread:
            self._unread.append(follower)
        self._moved_on.set()

    def _next(self) -> Follower | None:
        """The next file to serve: in turn, but none before its elders of the same name are read to their end."""
        for follower in self._unread:
            if not any(item.active == follower.active and item.order < follower.order for item in self._unread):
                self._unread.remove(follower)
                return follower
        return None

    async def _serve(self, follower: Follower) -> None:
        """Read and hand over a file's next lines, then put it back in line if it may have more."""
        finish = follower in self._finishing
        self._finishing.discard(follower)
        if timer := self._partial.pop(follower, None):
            timer.cancel()
        progress = await self._on_disk(self._read, follower, finish)
        while follower.waiting:
            while self._in_hand >= self._spec.max_in_flight:
                await self._free.wait()
            await self._sink.room()
            self._hand_over(follower, follower.hand())
        if progress is Progress.TRUNCATED:
            await self._truncated(follower)
        elif progress is Progress.PARTIAL:
            self._partial[follower] = self._loop.call_later(self._spec.settle, self._quiet, follower)
        elif progress is Progress.MORE:
            self._read_on(follower)

    def _read(self, follower: Follower, finish: bool) -> Progress:
        """In the disk thread."""
        try:
            progress = follower.read(finish=finish)
        except OSError:
            self._count_later("unreadable")
            return Progress.END
        if self._once and follower.waiting:
            self._remember([follower.at_read()])
        return progress

    def _quiet(self, follower: Follower) -> None:
        """A last line without its newline has not grown for `settle`: it is handed over as it is."""
        del self._partial[follower]
        self._finishing.add(follower)
        self._read_on(follower)

    async def _truncated(self, follower: Follower) -> None:
        """Go on in the copy, if there is one, then at the start. First all that was read of it must be handled."""
        while not follower.idle:
            self._free.clear()
            await self._free.wait()
        self._sink.count("truncated")
        for item in await self._on_disk(self._begin_again, follower):
            self._read_on(item)

    def _begin_again(self, follower: Follower) -> list[Follower]:
        """In the disk thread. Both places are written at once, so that a crash repeats or loses neither."""
        copies = self._rotation.copies_of(follower.path, follower.at_read())
        follower.seek(0)
        self._remember([*self._rotation.news, follower.at_read()])
        self._rotation.news = []
        return [*copies, follower]

    # One line

    def _hand_over(self, follower: Follower, line: Line) -> None:
        event = Event(
            body=line.body,
            content_type=self._spec.content_type,
            path=as_text(self._selection.relative(follower.path)),
            url=as_text(follower.path),
            offset=line.start,
            id=follower.id_of(line) if self._with_ids else "",
            headers=(("X-Headrace-File", as_text(os.path.basename(follower.path))),),
        )
        self._in_hand += 1
        if self._in_hand >= self._spec.max_in_flight:
            self._free.clear()
        if self._once:
            follower.done(line)
            self._unsaved.add(follower)
        self._sink.deliver(event, partial(self._done, follower, line))

    def _done(self, follower: Follower, line: Line, outcome: Outcome) -> None:
        self._in_hand -= 1
        if not self._once and outcome.result is not Result.STOPPED and follower.done(line):
            self._unsaved.add(follower)
            self._unsaved_lines += 1
            if self._unsaved_lines >= SAVE_LINES:
                self._save()
            elif self._save_timer is None:
                self._save_timer = self._loop.call_later(SAVE_S, self._save)
        self._sink.count("handled" if outcome.ok else "failed")
        if not outcome.ok and outcome.result is not Result.STOPPED:
            self._failures.line(follower.path, line.start, outcome)
        self._free.set()

    # Memory

    def _save(self) -> asyncio.Future[None]:
        if self._save_timer:
            self._save_timer.cancel()
            self._save_timer = None
        places = [follower.handled() for follower in self._unsaved]
        self._unsaved.clear()
        self._unsaved_lines = 0
        return self._on_disk(self._remember, places)

    def _remember(self, places: list[Position]) -> None:
        """In the disk thread."""
        try:
            self._positions.put(places)
        except OSError:
            self._count_later("remember_failed")

    def _count_later(self, what: str) -> None:
        """From the disk thread."""
        self._loop.call_soon_threadsafe(self._sink.count, what)

    def _on_disk(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._disk, call, *arguments)

    async def close(self) -> None:
        """After the sink has drained: save, stop timers and thread, close every file."""
        try:
            await self._save()
        finally:
            self._failures.close()
            for timer in self._partial.values():
                timer.cancel()
            self._disk.shutdown()
            for follower in self._rotation.followers.values():
                follower.close()
            self._positions.close()
