"""What one commit writes: everything that has come together within a commit window.

Flow: sinks fill it on the loop -> store writes it in its thread -> `then` runs on the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

Then = Callable[[bool], None]
"""Called once: True when it is on the disk, False when it never will be."""

Write = Callable[["sqlite3.Connection"], None]
"""What another part of the processor writes in the same transaction. Made again when the commit is."""


class Letter(NamedTuple):
    """One event for the dead letters. Times in nanoseconds since 1970."""

    trigger: str
    attempts: int
    received_ns: int
    failed_ns: int
    result: str
    status: int
    reason: str
    mark: bytes | None
    event: bytes


class Caps(NamedTuple):
    """Bounds of one trigger's dead letters."""

    most: int
    size: int  # bytes
    age_s: float


class Returned(NamedTuple):
    """A dead letter that was replayed and has failed again."""

    attempts: int
    failed_ns: int
    result: str
    status: int
    reason: str
    id: int


@dataclass(slots=True)
class Chunk:
    """Marks of one trigger that were finished in one commit; with `answer`, one mark and the reply kept for it."""

    seq: int
    at: int
    marks: list[bytes] = field(default_factory=list)
    answer: bytes | None = None


@dataclass(slots=True)
class Eviction:
    """Events of a full journal to give up: the oldest of a trigger after `after`, `size` bytes, but not `keep`."""

    trigger: int
    after: int
    size: int
    keep: frozenset[int]
    gone: list[tuple[int, int, bytes | None]] = field(default_factory=list)  # seq, size, mark: filled by the store


@dataclass(slots=True)
class Group:
    """One commit."""

    inserts: list[tuple[int, int, bytes | None, bytes]] = field(default_factory=list)  # seq, at, mark, event
    removed: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    forgotten: dict[int, int] = field(default_factory=dict)  # trigger -> last chunk whose marks have had their time
    letters: list[tuple[Letter, Caps]] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)  # dead letters that were replayed and are handled
    returned: list[Returned] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    then: list[Then] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (
            self.inserts
            or self.removed
            or self.attempts
            or self.chunks
            or self.forgotten
            or self.letters
            or self.settled
            or self.returned
            or self.evictions
            or self.writes
            or self.then
        )

    def follow(self, later: Group) -> None:
        """Take up what came while this one could not be written."""
        self.inserts += later.inserts
        self.removed += later.removed
        self.attempts |= later.attempts
        self.chunks += later.chunks
        self.forgotten |= later.forgotten
        self.letters += later.letters
        self.settled += later.settled
        self.returned += later.returned
        self.evictions += later.evictions
        self.writes += later.writes
        self.then += later.then
