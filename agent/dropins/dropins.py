"""Files and folders put into the functions folder, turned into what should run.

Why: the simplest way to deploy is `cp`. Flow: folder -> [drop-ins] -> commands to the target (apply, reject, remove).
Promise: a change is applied to the function it belongs to and to no other; what cannot be used leaves the version
before it alone and says why; what could not be prepared for a reason that may pass (no room) is tried again, waiting
longer each time; content decides, not time stamps; a folder that vanishes as a whole stops nothing.
Files are read in a thread: one that takes seconds to read delays other changes, but not the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loguru import logger

from agent.dropins.digest import Digests
from agent.dropins.inotify import Tree
from agent.dropins.names import ignored, is_function_file
from agent.model.errors import AgentError
from agent.model.language import handler_file, language_of
from agent.model.load import Loaded
from agent.model.names import legal_name

SETTLE_S = 0.04
LONGEST_SETTLE_S = 0.4
"""Somebody who writes all the time does not hold up the others for longer."""

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 300.0
"""Between two attempts to prepare what the device could not take the last time; the wait doubles."""

Load = Callable[[Path], Loaded]
"""Reads a file or folder; raises AgentError with file, line and key. See `agent.model.load.load_function`."""


class Target(Protocol):
    """What drop-ins are applied to."""

    async def apply(self, loaded: Loaded, digest: str) -> None:
        """Run this from now on. Raises AgentError when it cannot even be prepared."""

    def reject(self, name: str, message: str) -> None: ...
    def accept(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...


@dataclass(slots=True)
class Entry:
    """One file or folder. `loaded` is the last that could be read from it, with the digest it had then. `claims` are
    the names beside it that hold its code: they are part of it and no functions of their own."""

    path: Path
    digest: str = ""
    loaded: Loaded | None = None
    good_digest: str = ""
    error: str = ""
    claims: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its function; before one could be read, made from the file's name."""
        return self.loaded.function.metadata.name if self.loaded else legal_name(self.path.stem)


class DropIns:
    """One functions folder. `run` is its one task; `rescan` may be called at any time."""

    def __init__(
        self, folder: Path, load: Load, target: Target, settle_s: float = SETTLE_S, leave_out: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._load = load
        self._target = target
        self._settle_s = settle_s
        self._digests = Digests(leave_out)
        self._entries: dict[str, Entry] = {}
        self._applied: dict[str, tuple[Path, str]] = {}
        self._problems: dict[str, str] = {}
        self._changed: set[str] = set()
        self._everything = False
        self._event = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = FIRST_RETRY_S

    async def run(self, scanned: Callable[[], None]) -> None:
        """Until cancelled. `scanned` is called once what was there at the start has been applied."""
        tree = Tree(self._folder, self._note)
        try:
            tree.start()
            await self._look(None)
            scanned()
            while True:
                await self._event.wait()
                await self._settled()
                changed = None if self._everything else self._changed
                self._changed, self._everything = set(), False
                await self._look(changed)
        finally:
            if self._retry:
                self._retry.cancel()
            tree.close()

    def rescan(self) -> None:
        """Look at everything again, and try again what could not be prepared."""
        self._note(None)

    def _note(self, name: str | None) -> None:
        if name is None:
            self._everything = True
        else:
            self._changed.add(name)
        self._event.set()

    async def _settled(self) -> None:
        """Returns once nothing has happened for a moment."""
        deadline = time.monotonic() + max(LONGEST_SETTLE_S, self._settle_s)
        while time.monotonic() < deadline:
            self._event.clear()
            try:
                async with asyncio.timeout(self._settle_s):
                    await self._event.wait()
            except TimeoutError:
                break
        self._event.clear()

    async def _look(self, changed: Iterable[str] | None) -> None:
        """Read what changed (None: everything), then decide."""
        if await asyncio.to_thread(self._read_changed, changed):
            await self._decide()

    def _read_changed(self, changed: Iterable[str] | None) -> bool:
        """In a thread, which has the entries to itself meanwhile. False: nothing can be said about the folder."""
        try:
            present = {item.name for item in self._folder.iterdir() if _is_candidate(item)}
        except OSError as error:
            logger.error(
                "functions folder cannot be read, nothing is changed", folder=str(self._folder), error=str(error)
            )
            return False
        for name in set(self._entries) - present:
            self._digests.forget(self._entries.pop(name).path)
        for name in sorted(present if changed is None else self._touched(present, set(changed))):
            self._read(name)
        return True

    def _touched(self, present: set[str], changed: set[str]) -> set[str]:
        """Names to read again: those that changed, and those whose code stands under a name that changed."""
        return {name for name in present if name in changed or changed.intersection(self._claims_of(name))}

    def _claims_of(self, name: str) -> tuple[str, ...]:
        return self._entries[name].claims if name in self._entries else ()

    def _read(self, name: str) -> None:
        path = self._folder / name
        try:
            digest = self._digest(path, self._claims_of(name))
        except FileNotFoundError:
            self._entries.pop(name, None)
            return
        except OSError as error:
            self._fail(self._entries.setdefault(name, Entry(path)), f"{path}: cannot be read: {error.strerror}")
            return
        entry = self._entries.setdefault(name, Entry(path))
        if entry.digest != digest:
            entry.digest = digest
            self._load_entry(entry)

    def _load_entry(self, entry: Entry) -> None:
        try:
            loaded = self._load(entry.path)
        except AgentError as error:
            self._fail(entry, str(error))
            return
        except Exception as error:  # reading a kind imports its plug-in: a broken one must not end the agent
            logger.opt(exception=error).error("reading a drop-in failed", file=str(entry.path))
            self._fail(entry, f"{entry.path}: internal error: {error!r}")
            return
        for warning in loaded.warnings:
            logger.warning("drop-in has a problem", file=str(warning.place), problem=warning.message)
        claims = claimed(loaded, self._folder)
        if claims != entry.claims:
            entry.claims, entry.digest = claims, self._digest(entry.path, claims)
        entry.loaded, entry.good_digest, entry.error = loaded, entry.digest, ""

    def _digest(self, path: Path, claims: tuple[str, ...]) -> str:
        parts = [self._digests.of(path)]
        for name in claims:
            with contextlib.suppress(OSError):
                parts.append(self._digests.of(self._folder / name))
        return "+".join(parts)

    def _fail(self, entry: Entry, error: str) -> None:
        if error != entry.error:
            entry.error = error
            logger.error("drop-in cannot be used", file=str(entry.path), error=error)

    async def _decide(self) -> None:
        """The first file, in the order of their names, that defines a function counts."""
        wanted: dict[str, Entry] = {}
        problems: dict[str, str] = {}
        parts = {name for entry in self._entries.values() for name in entry.claims}
        for _, entry in sorted(item for item in self._entries.items() if item[0] not in parts):
            if entry.error:
                problems.setdefault(entry.name, entry.error)
            if entry.loaded is not None and wanted.setdefault(entry.name, entry) is not entry:
                first = wanted[entry.name].path
                problems[entry.name] = (
                    f"{entry.path}: function {entry.name!r} is already defined by {first}, which counts; "
                    "rename one of them (metadata.name) or remove it"
                )
        self._remove_unwanted({*wanted, *problems})
        again = False
        for name, entry in wanted.items():
            again |= await self._apply(name, entry, problems)
        self._report(problems)
        self._plan_retry(again)

    def _remove_unwanted(self, known: set[str]) -> None:
        for name in sorted({*self._applied, *self._problems} - known):
            self._applied.pop(name, None)
            self._problems.pop(name, None)
            self._target.remove(name)

    def _plan_retry(self, wanted: bool) -> None:
        """Decide once more later, with nothing changed in the folder."""
        if self._retry:
            self._retry.cancel()
            self._retry = None
        if wanted:
            self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._event.set)
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
        else:
            self._retry_s = FIRST_RETRY_S

    async def _apply(self, name: str, entry: Entry, problems: dict[str, str]) -> bool:
        """Hand it over unless that was done. True: it failed, and may succeed later with nothing changed."""
        version = (entry.path, entry.good_digest)
        if self._applied.get(name) == version or entry.loaded is None:
            return False
        try:
            await self._target.apply(entry.loaded, entry.good_digest)
        except AgentError as error:
            problems[name] = str(error)
            return error.retry
        self._applied[name] = version
        self._problems.pop(name, None)
        return False

    def _report(self, problems: dict[str, str]) -> None:
        for name in self._problems.keys() - problems.keys():
            self._target.accept(name)
        for name, message in problems.items():
            if self._problems.get(name) != message:
                if self._entry_error(name) != message:
                    logger.error("drop-in cannot be used", function=name, error=message)
                self._target.reject(name, message)
        self._problems = problems

    def _entry_error(self, name: str) -> str:
        return next((entry.error for entry in self._entries.values() if entry.name == name and entry.error), "")


def claimed(loaded: Loaded, folder: Path) -> tuple[str, ...]:
    """Names directly in `folder`, other than its own, in which the code of a function lies."""
    code = loaded.code_file or loaded.code_dir
    spec = loaded.function.spec
    if code == folder and loaded.source != folder:
        code = folder / (handler_file(spec.handler, language_of(spec.runtime)) or loaded.source.name)
    if code is None or not code.is_relative_to(folder) or code == folder:
        return ()
    name = code.relative_to(folder).parts[0]
    return () if name == loaded.source.name else (name,)


def _is_candidate(path: Path) -> bool:
    """A specification, a code file, or a folder that holds either."""
    if ignored(path.name):
        return False
    if not path.is_dir():
        return is_function_file(path.name) and path.exists()
    try:
        return any(is_function_file(item.name) for item in path.iterdir())
    except OSError:
        return True
