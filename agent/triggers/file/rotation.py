"""Finds out which file is which when logs are rotated: renamed, copied and truncated, or both while nobody looked.

Flow: Lines asks, in the disk thread, about every path that the tree reports.

A file is known by its inode as long as its position fits. A file of a rotated name (`app.log.1` beside `app.log`) that
is not known is either the copy of a known one, then only what was not read of it yet is read; or a whole rotation that
was missed, then all of it is read. At the very first start it is history, and is not read.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.triggers.file.follower import Follower
from agent.triggers.file.ledger import hash64
from agent.triggers.file.positions import Position, Positions, position_at
from agent.triggers.file.reading import OPEN_FLAGS
from agent.triggers.file.selection import Selection
from agent.triggers.file.spec import FileSpec

PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z", ".zip")


@dataclass(slots=True)
class Change:
    """A path to examine."""

    path: str
    sure: bool  # it is complete: moved in, closed, or quiet
    first: bool = False  # found by the first walk ever
    known: bool = False  # its inode has a position


class RotatedNames:
    """The selection of lines mode: the wanted names, and those they get when they are rotated away."""

    def __init__(self, selection: Selection, templates: Sequence[str]) -> None:
        self._selection, self._templates = selection, templates
        self.root, self.recursive = selection.root, selection.recursive

    def enters(self, path: str) -> bool:
        return self._selection.enters(path)

    def takes(self, path: str) -> bool:
        return self._selection.takes(path) or self.active_of(path, ()) is not None

    def active_of(self, path: str, followed: Iterable[str]) -> str | None:
        """The name a rotated file had, or None when its name is not that of a rotated one.

        A name that is wanted itself (`patterns: ["*"]`) is only a rotated one beside a file that is followed.
        """
        folder, name = os.path.split(path)
        wanted = self._selection.takes(path)
        for length in range(len(name) - 1, 0, -1):
            before = os.path.join(folder, name[:length])
            if self._fits(name, name[:length]) and (before in followed if wanted else self._selection.takes(before)):
                return before
        return None

    def _fits(self, name: str, active: str) -> bool:
        rest = name[len(active) :]
        return any(fnmatch.fnmatchcase(rest, template[len("{name}") :]) for template in self._templates)


class Rotation:
    """Opens followers at the right place. Used in the disk thread only."""

    def __init__(self, spec: FileSpec, names: RotatedNames, positions: Positions) -> None:
        self._spec, self.names, self._positions = spec, names, positions
        self.followers: dict[int, Follower] = {}  # by inode
        self.news: list[Position] = []  # to be remembered though no line was handled

    def examine(self, change: Change) -> list[Follower]:
        """The followers to read from because of this path. Raises OSError."""
        descriptor = os.open(change.path, OPEN_FLAGS)
        found: list[Follower] = []
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                found = self._known(change, status) or self._unknown(change, descriptor, status)
            return found
        finally:
            if not any(item.descriptor == descriptor for item in found):
                os.close(descriptor)

    def _known(self, change: Change, status: os.stat_result) -> list[Follower]:
        follower = self.followers.get(status.st_ino)
        if follower is None:
            return []
        follower.path = change.path
        return [follower]

    def copies_of(self, path: str, place: Position) -> list[Follower]:
        """A follower of what `copytruncate` saved of a file behind the place; empty when there is no such copy."""
        for name in self._rotated_of(path, os.path.dirname(path)):
            try:
                descriptor = os.open(name, OPEN_FLAGS)
            except OSError:
                continue
            status = os.fstat(descriptor)
            if place.inode != status.st_ino and place.offset <= status.st_size and place.fits(descriptor):
                return [self._follow_copy(descriptor, name, path, place.offset)]
            os.close(descriptor)
        return []

    def _follow_copy(self, descriptor: int, name: str, path: str, offset: int) -> Follower:
        """The copy may be open already, taken for a file of which everything was handled."""
        follower = self.followers.get(os.fstat(descriptor).st_ino)
        if follower is None:
            follower = self._follow(descriptor, name, path, offset)
        else:
            os.close(descriptor)
            if follower.idle and follower.at_read().offset > offset:
                follower.seek(offset)
        self.news.append(follower.at_read())
        return follower

    def _rotated_of(self, path: str, folder: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(PACKED) and self.names.active_of(entry.path, (path,)) == path:
                    yield entry.path

    def _unknown(self, change: Change, descriptor: int, status: os.stat_result) -> list[Follower]:
        path = change.path
        active = self.names.active_of(path, {item.active for item in self.followers.values()})
        place = self._positions.get(status.st_ino)
        if place and place.offset <= status.st_size and place.fits(descriptor):
            return [self._follow(descriptor, path, active or path, place.offset)]
        if active is None:
            return self._unknown_active(change, descriptor, status, place)
        if path.endswith(PACKED) or status.st_size == 0:
            return []
        if change.first or self._is_copy(descriptor, status):
            if change.first or change.sure:  # else it may still grow, and its end would be taken for new
                self.news.append(position_at(descriptor, status.st_ino, status.st_size))
            return []
        return [*self._others_of(active), self._follow(descriptor, path, active, 0)]

    def _unknown_active(
        self, change: Change, descriptor: int, status: os.stat_result, place: Position | None
    ) -> list[Follower]:
        path = change.path
        if change.first and self._spec.initial == "new":
            self.news.append(position_at(descriptor, status.st_ino, status.st_size))
            return [self._follow(descriptor, path, path, status.st_size)]
        saved = self.copies_of(path, place) if place and place.offset else []
        self.news.append(Position(status.st_ino, 0, hash64(b""), hash64(b"")))
        found = [*saved, *self._others_of(path), self._follow(descriptor, path, path, 0)]
        return found if change.first else found + self._missed(path)

    def _missed(self, path: str) -> list[Follower]:
        """A new file means a rotation: perhaps several, too quick to see the files between."""
        found: list[Follower] = []
        for name in list(self._rotated_of(path, os.path.dirname(path))):
            with suppress(OSError):
                found += self.examine(Change(name, sure=False))
        return found

    def _others_of(self, active: str) -> list[Follower]:
        """Those followed under the same name until now: their last lines come first."""
        return [item for item in self.followers.values() if item.active == active]

    def _is_copy(self, descriptor: int, status: os.stat_result) -> bool:
        """Whether a file holds what is, or was, followed under another inode."""
        others = [item for item in self.followers.values() if item.inode != status.st_ino]
        if any(_begins_with(item.descriptor, descriptor, status.st_size) for item in others):
            return True
        places = [item.at_read() for item in others if not item.at_read().fits(item.descriptor)]
        places += [item for item in self._positions.all() if item.inode not in self.followers]
        return any(_was(item, descriptor, status.st_size) for item in places if item.inode != status.st_ino)

    def _follow(self, descriptor: int, path: str, active: str, offset: int) -> Follower:
        follower = Follower(descriptor, path, active, offset, line_bytes=self._spec.max_line_size)
        self.followers[follower.inode] = follower
        return follower

    def drop(self, follower: Follower) -> None:
        """Stop following; its position is kept as long as the file is there."""
        follower.close()
        self.followers.pop(follower.inode, None)


def _begins_with(whole: int, part: int, size: int) -> bool:
    """Whether the file `part`, of that size, is how the file `whole` begins, judged by both ends of it."""
    if size == 0 or os.fstat(whole).st_size < size:
        return False
    return position_at(whole, 0, size) == position_at(part, 0, size)


def _was(place: Position, descriptor: int, size: int) -> bool:
    """Whether a file is a copy of one whose content is gone and only its place is known."""
    if place.offset == 0:
        return False
    return place.fits(descriptor) if place.offset <= size else place.begins(descriptor)
