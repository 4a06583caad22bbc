"""What the parts of delivery say to one another about sinks, windows and reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from agent.model.event import Event, Outcome, Result
from agent.model.spec import TriggerSpec

if TYPE_CHECKING:
    from agent.processor.delivery.store import Kept

SOON_S = 0.01
"""How long a commit waits for others where somebody waits for it."""

LATER_S = 0.1
"""And where nobody does."""

_LONGEST_REASON = 2000


class Sink(Protocol):
    """What delivery asks of the sinks."""

    @property
    def durable(self) -> bool:
        """It has a journal or ids, and needs the store from the start."""

    @property
    def journalled(self) -> bool:
        """It empties its journal itself."""

    def opened(self, kept: Kept) -> None:
        """The store is open, or was replaced; this is what it holds for the trigger."""

    def store_changed(self, trouble: str) -> None:
        """Why nothing new should be taken in; empty when all is well."""

    def replay(self, event: Event, attempts: int, done: Callable[[Outcome], None]) -> None:
        """Run the handler on an event out of the store; `done` once, with the last outcome."""

    def count(self, what: str, n: int = 1) -> None:
        """Add to a counter."""


def window_of(spec: TriggerSpec) -> float:
    """Seconds that commits of a trigger may wait for one another."""
    given = spec.journal_keys.commit_window
    if given is not None:
        return given
    return SOON_S if spec.redelivers or spec.kind == "http" else LATER_S


def reason_of(outcome: Outcome) -> str:
    """What a person needs to know: how the last attempt ended, and what the handler said."""
    said = outcome.body[:_LONGEST_REASON].decode(errors="replace").strip()
    how = f"status {outcome.status}" if outcome.result is Result.REPLIED else outcome.result.value
    return f"{how}: {said}" if said else how
