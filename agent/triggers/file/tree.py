"""Keeps watch on a directory tree and says which files of it may be new.

Why: kernel events overflow, are not made on network mounts, and do not tell what was there before the watch. So a
watch is set before its directory is listed, and the whole tree is walked again after an overflow, when the root comes
back, and every `rescan` seconds.

Flow: inotify and walks -> Tree -> Watcher (files or lines mode).
Promise: a file that is there and stays is reported within `rescan` seconds, mostly at once. It may be reported
often and for nothing: whoever is told looks for himself. Idle, the only thing that wakes is the rescan timer.
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from watchdog.observers.inotify_c import InotifyConstants as Flag

from agent.model.sink import Sink
from agent.triggers.file.inotify import (
    CHANGING,
    COMPLETE,
    FOR_PARENTS,
    FOR_TREES,
    LOST,
    Inotify,
    close_inotify,
    open_inotify,
)
from agent.triggers.file.selection import Chooser, Walk, WalkFailed
from agent.triggers.file.spec import FileSpec


class Survey(Protocol):
    """Collects what one walk finds."""

    def see(self, path: str, status: os.stat_result) -> None:
        """One wanted file. Called in the walker's thread."""

    def over(self, whole: bool) -> None:
        """The walk is over. `whole`: it covered the tree, what it did not see is gone. Called on the loop."""


class Watcher(Protocol):
    """Who is told. Called on the loop unless it says otherwise."""

    def touched(self, path: str, complete: bool) -> None:
        """A file was closed after writing or moved in (`complete`), or made or written to (not)."""

    def survey(self) -> Survey:
        """A collector for a walk that begins now."""


class Tree:
    """The watched tree of one trigger. `run` it; `close` it after that was cancelled."""

    def __init__(self, spec: FileSpec, chooser: Chooser, sink: Sink, watcher: Watcher) -> None:
        self._chooser, self._sink, self._watcher = chooser, sink, watcher
        self._rescan_s = spec.rescan_s
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._walker = ThreadPoolExecutor(1, thread_name_prefix=f"walk-{sink.name}")
        self._walk: Walk | None = None
        self._walked: asyncio.Future[None] | None = None
        self._folders: dict[int, str] = {}  # by number of the watch
        self._root_watch = -1
        self._limit_told = False
        self._inotify: Inotify | None = None
        if not spec.poll:
            self._inotify = open_inotify(self._wake)

    def _wake(self) -> None:
        """Called from the reader's thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Watch until cancelled; a missing root is waited for."""
        while True:
            if await self._look_over(self._chooser.root, whole=True):
                self._sink.up(self._chooser.root)
                await self._until_lost()
            else:
                await self._until_it_may_be_there()

    async def close(self) -> None:
        """Stop walk, reader and threads; no descriptor is left."""
        if self._walk:
            self._walk.stopped = True
        try:
            if self._walked and not self._walked.done():
                await asyncio.wait([self._walked])
        finally:
            if self._inotify:
                close_inotify(self._inotify)
            self._walker.shutdown()

    async def _until_lost(self) -> None:
        """Pass on what happens until the root is gone."""
        due = self._loop.time() + self._rescan_s
        while True:
            if not await self._woken_by(due):
                due = self._loop.time() + self._rescan_s
                if not await self._look_over(self._chooser.root, whole=True):
                    return
                continue
            news = self._sort_events()
            if news is None:
                return
            for folder in news:
                await self._look_over(folder, whole=folder == self._chooser.root)

    async def _woken_by(self, due: float) -> bool:
        """Whether inotify had something to say before the rescan was due."""
        try:
            async with asyncio.timeout_at(due):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def _sort_events(self) -> list[str] | None:
        """Tell the watcher about files; the folders to look over, or None when the root is lost."""
        assert self._inotify
        folders: list[str] = []
        for (number, name), flags in self._inotify.take().items():
            if flags & Flag.IN_Q_OVERFLOW:
                self._sink.count("overflows")
                self._sink.log.warning("file events were lost in the kernel's queue; looking over the whole tree")
                folders = [self._chooser.root]
            if flags & LOST and number == self._root_watch:
                self._forget_below(self._chooser.root)
                return None
            if flags & Flag.IN_IGNORED:
                self._folders.pop(number, None)
            elif name and number in self._folders:
                self._event(os.path.join(self._folders[number], os.fsdecode(name)), flags, folders)
        return folders

    def _event(self, path: str, flags: int, folders: list[str]) -> None:
        if flags & Flag.IN_ISDIR:
            if flags & Flag.IN_MOVED_FROM:
                self._forget_below(path)
            if flags & (Flag.IN_CREATE | Flag.IN_MOVED_TO) and self._chooser.enters(path):
                folders.append(path)
        elif flags & (COMPLETE | CHANGING) and self._chooser.takes(path):
            self._watcher.touched(path, bool(flags & COMPLETE))

    def _forget_below(self, top: str) -> None:
        """A folder was moved away: its watches would go on reporting under the old name."""
        assert self._inotify
        for number, folder in list(self._folders.items()):
            if folder == top or folder.startswith(top + "/"):
                del self._folders[number]
                self._inotify.forget(number)

    async def _look_over(self, top: str, *, whole: bool) -> bool:
        """Watch and walk everything below `top`. False when the root cannot be read; why is then shown."""
        survey = self._watcher.survey()
        self._walk = walk = Walk(self._chooser, self._watch, survey.see)
        self._walked = self._loop.run_in_executor(self._walker, walk.over, top)
        try:
            await asyncio.shield(self._walked)
        except WalkFailed as failure:
            if top == self._chooser.root:
                self._sink.down(_why(top, failure.__cause__))
                return False
            return True  # a folder that is gone again, or that the next rescan may enter
        if walk.skipped:
            self._sink.count("unreadable", walk.skipped)
        survey.over(whole and not walk.broken)
        return True

    def _watch(self, folder: str) -> None:
        """Set the watch of a folder. In the walker's thread."""
        if self._inotify is None:
            return
        try:
            number = self._inotify.watch(folder, FOR_TREES)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._loop.call_soon_threadsafe(self._limit_reached)
            return
        self._folders[number] = folder
        if folder == self._chooser.root:
            self._root_watch = number

    def _limit_reached(self) -> None:
        self._sink.count("unwatched")
        if not self._limit_told:
            self._limit_told = True
            self._sink.log.warning(
                "no more inotify watches; folders without one are only seen at each rescan",
                fix="sysctl -w fs.inotify.max_user_watches=524288",
                rescan_s=self._rescan_s,
            )

    async def _until_it_may_be_there(self) -> None:
        """Sleep until something is made in the nearest folder that exists, or for a rescan's time."""
        due = self._loop.time() + self._rescan_s
        awaited, number = self._watch_parent()
        try:
            while not exists(awaited) and await self._woken_by(due):
                if self._parent_lost(number):
                    return
            if number is None:
                await asyncio.sleep(due - self._loop.time())
        finally:
            if self._inotify and number is not None:
                self._inotify.forget(number)

    def _parent_lost(self, number: int | None) -> bool:
        """Whether the watched parent itself is gone. Takes what has happened, so that the next event wakes again."""
        happened = self._inotify.take() if self._inotify else {}
        return any(watch == number and flags & LOST for (watch, _), flags in happened.items())

    def _watch_parent(self) -> tuple[str, int | None]:
        """The path to wait for, and the watch that tells; None where only the timer can."""
        root = self._chooser.root
        parent = nearest_folder(root)
        awaited = os.path.join(parent, root[len(parent) :].lstrip("/").partition("/")[0])
        if self._inotify is None or os.path.isdir(root):
            return awaited, None
        try:
            return awaited, self._inotify.watch(parent, FOR_PARENTS)
        except OSError:
            return awaited, None  # not allowed, or gone this moment


def nearest_folder(path: str) -> str:
    """The closest ancestor of an absolute path that is a directory."""
    parent = os.path.dirname(path)
    while not os.path.isdir(parent) and parent != "/":
        parent = os.path.dirname(parent)
    return parent


def exists(path: str) -> bool:
    """Whether there is anything of that name."""
    return os.path.lexists(path)


def _why(root: str, error: BaseException | None) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the folder {root} is not there; make it (mkdir -p {root}) or mend `path`: it is waited for"
    if isinstance(error, NotADirectoryError):
        return f"{root} is not a folder; mend `path`"
    if isinstance(error, PermissionError):
        return f"not allowed to read the folder {root}; give the agent's user read and enter rights (chmod, setfacl)"
    return f"the folder {root} cannot be read: {error}"
