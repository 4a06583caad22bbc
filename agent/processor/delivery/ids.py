"""Which events are known by their id: being handled, or handled within the window.

Flow: durable sink asks before it takes an event, and tells when one is finished; chunks of marks go into the commit
that also removes the event from the journal.

Marks are kept in memory, 16 bytes of hash for an id: asking costs nothing, and nothing is read. On the disk they are
appended, never searched, so that a commit writes one more short row, not one page for each id.
"""

from __future__ import annotations

from collections import deque

from agent.model.spec import IdWindow
from agent.processor.delivery.group import Chunk, Group
from agent.processor.delivery.store import Kept

NO_ANSWER = 0


class Ids:
    """The marks of one trigger. Finished ones lead to the seq of the chunk with their answer, or NO_ANSWER."""

    def __init__(self, window: IdWindow, kept: Kept) -> None:
        self._window = window
        self._number = kept.number
        self._next = kept.next_chunk
        self._chunks: deque[Chunk] = deque(kept.chunks)
        self._open: tuple[Group, Chunk] | None = None  # the chunk that a group's marks still go to
        self._count = sum(len(chunk.marks) for chunk in kept.chunks)
        self.finished: dict[bytes, int] = {
            mark: NO_ANSWER if chunk.answer is None else chunk.seq for chunk in kept.chunks for mark in chunk.marks
        }

    def finish(self, mark: bytes, group: Group, at: int, answer: bytes | None = None) -> None:
        """The event is handled: its mark goes to the disk with the group. It counts as known when `know` says so."""
        if answer is not None:
            self._append(Chunk(self._next, at, [mark], answer), group)
        elif self._open is not None and self._open[0] is group:
            self._open[1].marks.append(mark)
        else:
            chunk = Chunk(self._next, at, [mark])
            self._append(chunk, group)
            self._open = group, chunk
        self._count += 1
        self._forget(group, at)

    def know(self, mark: bytes, answered: int = NO_ANSWER) -> None:
        """The mark is on the disk."""
        self.finished[mark] = answered

    @property
    def last_seq(self) -> int:
        """Of the chunk that was begun last."""
        return self._next - 1

    def _append(self, chunk: Chunk, group: Group) -> None:
        self._next += 1
        self._chunks.append(chunk)
        group.chunks.append(chunk)

    def _forget(self, group: Group, at: int) -> None:
        """Let the oldest go that are too old or too many. A window is kept in whole chunks: a little more, not less."""
        chunks, window = self._chunks, self._window
        while len(chunks) > 1:
            oldest = chunks[0]
            too_many = self._count - len(oldest.marks) >= window.max_count
            if not too_many and oldest.at >= at - window.max_age:
                return
            chunks.popleft()
            self._count -= len(oldest.marks)
            for mark in oldest.marks:
                self.finished.pop(mark, None)
            group.forgotten[self._number] = oldest.seq
