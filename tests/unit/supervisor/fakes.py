"""A processor that does nothing but what a test tells it, for the state machine of one function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.model.errors import AgentError
from agent.model.spec import Function, FunctionSpec, Metadata, TriggerSpec
from agent.supervisor.backoff import Policy
from agent.supervisor.function import SupervisedFunction
from agent.supervisor.process import Phase
from agent.supervisor.version import Version

POLICY = Policy(first_s=1.0, longest_s=8.0, stable_s=10.0, limit=3, parked_s=300.0)


def version(digest: str = "1", triggers: tuple[str, ...] = ("t",), **spec: Any) -> Version:
    specs = {name: TriggerSpec(name=name, kind="cron") for name in triggers}
    function = Function(metadata=Metadata(name="f"), spec=FunctionSpec(triggers=specs, **spec))
    return Version(function, Path("/nowhere"), f"f-{digest}.yaml", digest)


class FakeProcessor:
    def __init__(self, version: Version, world: World) -> None:
        self.version, self.world = version, world
        self.phase = Phase.STARTING
        self.triggers = dict.fromkeys(version.triggers)
        self.started: set[str] = set()
        self.released: set[str] = set()
        self.since = world.now
        self.pid = 1
        self.exit_code: int | None = None
        self.failing: dict[str, str] = {}
        self.told: list[str] = []
        self.due: float | None = None

    @property
    def waiting(self) -> bool:
        return self.phase is Phase.READY

    @property
    def hopeless(self) -> bool:
        return self.exit_code == 2

    @property
    def reason(self) -> str:
        return f"exit code {self.exit_code}"

    def go(self, triggers: list[str]) -> None:
        self.started.update(triggers)
        if self.started >= self.triggers.keys():
            self.phase, self.since = Phase.SERVING, self.world.now

    def release(self) -> None:
        self.told.append("release")
        self.phase = Phase.LEAVING

    def end(self) -> None:
        self.told.append("end")
        self.phase = Phase.LEAVING

    def kill(self) -> None:
        self.told.append("kill")
        self.phase = Phase.LEAVING

    def advance(self, now: float) -> None:
        pass

    def holds(self, trigger: str) -> bool:
        return self.phase is not Phase.ENDED and trigger in self.started and trigger not in self.released

    # what tests say

    def ready(self) -> None:
        self.phase = Phase.READY

    def exits(self, code: int) -> None:
        self.exit_code, self.phase = code, Phase.ENDED


class FakeSockets:
    def __init__(self) -> None:
        self.error: AgentError | None = None
        self.kept: list[Version] = []

    def open(self, version: Version) -> list[tuple[str, int]]:
        if self.error:
            raise self.error
        return []

    def keep(self, function: str, versions: Any) -> None:
        self.kept = list(versions)


class World:
    """One supervised function in a time that only tests move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.launched: list[FakeProcessor] = []
        self.unused: list[str] = []
        self.sockets = FakeSockets()
        self.function = SupervisedFunction(
            "f",
            self._launch,  # type: ignore[arg-type]
            self.sockets,  # type: ignore[arg-type]
            POLICY,
            lambda version: self.unused.append(version.digest),
        )

    def _launch(self, version: Version, listeners: list[tuple[str, int]], changed: Callable[[], None]) -> FakeProcessor:
        self.launched.append(FakeProcessor(version, self))
        return self.launched[-1]

    def look(self, after_s: float = 0.0) -> float | None:
        self.now += after_s
        return self.function.reconcile(self.now)

    def serve(self, given: Version) -> FakeProcessor:
        """Apply and bring it to serving."""
        self.function.apply(given)
        self.look()
        processor = self.launched[-1]
        processor.ready()
        self.look()
        return processor

    @property
    def last(self) -> FakeProcessor:
        return self.launched[-1]
