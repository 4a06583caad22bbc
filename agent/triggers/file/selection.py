"""Which files of a tree a trigger takes, and the walk that finds them.

Flow: FileSpec -> Selection; the tree asks it about every name that inotify or a walk brings.
Promise: only regular files; symbolic links are never followed below the root, so nobody who may write into the
watched folder can make the agent read a file elsewhere.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.triggers.file.spec import FileSpec

WILDCARD = re.compile(r"[*?\[]")


class Chooser(Protocol):
    """What a tree must know about names."""

    @property
    def root(self) -> str: ...
    @property
    def recursive(self) -> bool: ...
    def takes(self, path: str) -> bool: ...
    def enters(self, path: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """The names a trigger takes below `root` (absolute, without a slash at its end)."""

    root: str
    recursive: bool
    patterns: Patterns
    ignore: Patterns
    excluded: frozenset[str] = frozenset()  # folders that files are moved to

    def takes(self, path: str) -> bool:
        """Whether the file at this absolute path below the root is wanted, by its name alone."""
        relative = self.relative(path)
        return self.patterns.match(relative) and not self.ignore.match(relative)

    def enters(self, path: str) -> bool:
        """Whether the directory at this absolute path is looked into."""
        return self.recursive and path not in self.excluded and not self.ignore.match(self.relative(path))

    def relative(self, path: str) -> str:
        """The path as seen from the root."""
        return os.path.relpath(path, self.root) if self.root == "/" else path[len(self.root) + 1 :]


class Patterns:
    """Shell patterns: without a slash for the last part of a name, with one for the whole path from the root."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._name = _one_expression([item for item in patterns if "/" not in item])
        self._path = _one_expression([item for item in patterns if "/" in item])

    def match(self, relative: str) -> bool:
        """Whether any pattern fits. `*` in a pattern with a slash fits slashes too."""
        name = relative.rpartition("/")[2]
        return bool((self._name and self._name.match(name)) or (self._path and self._path.match(relative)))


def _one_expression(patterns: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(fnmatch.translate(item) for item in patterns)) if patterns else None


def selection_of(spec: FileSpec) -> Selection:
    """Resolve `path` (a folder, a file, or either with wildcards) and the patterns. Opens nothing but may stat."""
    root, patterns, deep = _split(spec)
    root = os.path.abspath(os.path.expanduser(root))
    excluded = frozenset(target(root, folder) for folder in (spec.move_to, spec.error_to) if folder)
    return Selection(root, spec.recursive or deep, Patterns(patterns), Patterns(spec.ignore), excluded)


def target(root: str, folder: str) -> str:
    """The absolute path of a folder given relative to the watched root."""
    return os.path.normpath(os.path.join(root, os.path.expanduser(folder)))


def _split(spec: FileSpec) -> tuple[str, Sequence[str], bool]:
    """Root, patterns, and whether the wildcards reach into folders below."""
    parts = spec.path.split("/")
    wild = next((place for place, part in enumerate(parts) if WILDCARD.search(part)), None)
    if wild is not None:
        pattern = "/".join(parts[wild:]).replace("**/", "*")
        deep = wild < len(parts) - 1
        return "/".join(parts[:wild]) or ("/" if spec.path.startswith("/") else "."), [pattern, *spec.patterns], deep
    if _names_a_file(spec):
        folder, name = os.path.split(spec.path)
        return folder or ".", [name], False
    return spec.path, spec.patterns or ("*",), False


def _names_a_file(spec: FileSpec) -> bool:
    """An existing file; or, where lines are followed, a name that is not there yet and stands without patterns."""
    path = os.path.expanduser(spec.path)
    if os.path.isdir(path) or path.endswith("/"):
        return False
    return os.path.isfile(path) or (spec.read == "lines" and not spec.patterns)


class WalkFailed(Exception):
    """The root itself cannot be listed; `__cause__` is the OSError."""


@dataclass(slots=True)
class Walk:
    """One walk over a tree. `skipped` directories could not be read; `broken` ones may be readable next time."""

    chooser: Chooser
    watch: Callable[[str], None]  # called for a directory before it is listed, so that nothing falls between
    see: Callable[[str, os.stat_result], None]
    skipped: int = 0
    broken: int = 0
    stopped: bool = False

    def over(self, top: str) -> None:
        """Visit every wanted file below `top`. Raises WalkFailed when `top` cannot be listed. Runs in a thread."""
        folders = [top]
        while folders and not self.stopped:
            folder = folders.pop()
            try:
                self.watch(folder)
                folders.extend(self._files_of(folder))
            except OSError as error:
                if folder == top:
                    raise WalkFailed from error
                self._note(error)

    def _files_of(self, folder: str) -> Iterator[str]:
        """Show the files of one directory, give its directories."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if self.chooser.enters(entry.path):
                        yield entry.path
                elif self.chooser.takes(entry.path):
                    self._show(entry)

    def _show(self, entry: os.DirEntry[str]) -> None:
        try:
            if entry.is_file(follow_symlinks=False):
                self.see(entry.path, entry.stat(follow_symlinks=False))
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        """Gone in the meantime is nothing; not allowed stays so; anything else may hide files that are there."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return
        self.skipped += 1
        self.broken += not isinstance(error, PermissionError)
