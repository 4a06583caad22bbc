"""One version of a function, prepared to be started, and the attempts made to run it.

Flow: drop-in -> prepared folder -> [version] -> supervised function -> processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent.model.spec import Function, TriggerSpec
from agent.supervisor.backoff import Backoff, Policy


@dataclass(slots=True)
class Attempts:
    """Live: what came of starting one version. `given_up` says why it is not tried again until it changes."""

    backoff: Backoff
    not_before: float = 0.0
    given_up: str = ""

    def allowed(self, now: float) -> bool:
        return not self.given_up and now >= self.not_before

    @property
    def blocked(self) -> bool:
        """Not worth keeping a port open for."""
        return bool(self.given_up) or self.backoff.parked


@dataclass(eq=False, slots=True)
class Version:
    """`folder` is the DIR that a processor is started with; `origin` the file or folder the operator wrote; `digest`
    stands for its content."""

    function: Function
    folder: Path
    origin: str
    digest: str = ""
    attempts: Attempts = field(default_factory=lambda: Attempts(Backoff(Policy())))

    @property
    def name(self) -> str:
        return self.function.metadata.name

    @property
    def triggers(self) -> dict[str, TriggerSpec]:
        """Those that are to run, by name."""
        return {name: spec for name, spec in self.function.spec.triggers.items() if not spec.disabled}

    @property
    def termination_s(self) -> float:
        """Seconds a processor may take to drain: as long as its slowest trigger's workers may."""
        return max((float(spec.worker_termination_timeout) for spec in self.triggers.values()), default=10.0)
