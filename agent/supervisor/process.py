"""One processor process, as its supervisor sees it.

Why: what a process said over its link, how far its end has come and what it left must be known in one place.
Flow: supervised function -> [processor] -> `headrace processor DIR`; messages and the exit status come back.
Promise: ending always ends: asked, then SIGTERM, then SIGKILL of the group and of everything that carries its mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from agent.model.errors import EXIT_CONFIGURATION
from agent.supervisor.link import Link, Message
from agent.supervisor.procfs import MARK
from agent.supervisor.reaper import Reaper
from agent.supervisor.records import Records, kill_marked
from agent.supervisor.version import Version

COMMAND = (sys.executable, "-m", "agent.cli.main", "processor")


Fork = Callable[[Path, dict[str, str], int, list[tuple[str, int]]], int]
"""Folder, environment, descriptor of the link, listeners as (trigger, descriptor); the pid of a child of ours."""


class Phase(enum.Enum):
    STARTING = "starting"
    READY = "ready"  # workers are ready, some triggers still belong to the processor before it
    SERVING = "serving"
    LEAVING = "draining"
    ENDED = "ended"


@dataclass(slots=True)
class TriggerState:
    """What a processor last said about one of its triggers."""

    up: bool = False
    address: str = ""
    why: str = ""


@dataclass(slots=True)
class Failure:
    """Why a processor cannot start, in its own words."""

    code: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class Launcher:
    """What every start of a processor needs. `margin_s`: between the steps of an end. `swept`: called when one ended
    by itself or was killed, to remove what it could not. `fork`: a quicker way to start one than `command`.
    """

    reaper: Reaper
    records: Records
    calls: Path
    margin_s: float = 2.0
    command: Sequence[str] = COMMAND
    swept: Callable[[], None] = lambda: None
    fork: Fork | None = None

    def __call__(self, version: Version, listeners: list[tuple[str, int]], changed: Callable[[], None]) -> Processor:
        """Start one. Raises OSError when the system has no room for another process."""
        return Processor(self, version, listeners, changed)


@dataclass(slots=True)
class _End:
    """How far an end has come: when the next, harder step is due."""

    due: float
    step: int = 0


class Processor:
    """`changed` is called whenever something here is worth another look."""

    def __init__(
        self, launcher: Launcher, version: Version, listeners: list[tuple[str, int]], changed: Callable[[], None]
    ) -> None:
        self.version = version
        self.phase = Phase.STARTING
        self.exit_code: int | None = None
        self.failure: Failure | None = None
        self.broken = ""
        self.failing: dict[str, str] = {}  # by pool of workers: why nothing comes of its events
        self.triggers: dict[str, TriggerState] = {name: TriggerState() for name in version.triggers}
        self.started: set[str] = set()
        self.released: set[str] = set()
        self.since = time.monotonic()
        self._launcher = launcher
        self._changed = changed
        self._end: _End | None = None
        self._mark = secrets.token_hex(8)
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._child: subprocess.Popen[bytes] | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = self._spawn(theirs.fileno(), listeners)
            except BaseException:
                ours.close()
                raise
        launcher.reaper.watch(self.pid, self._ended)
        self._link = Link(ours, self._heard, self._link_ended)
        launcher.records.add(self.pid, self._mark, version.name)

    def _spawn(self, link: int, listeners: list[tuple[str, int]]) -> int:
        environment = {**os.environ, MARK: self._mark, "HEADRACE_CALLS_DIR": str(self._launcher.calls)}
        if self._launcher.fork:
            try:
                return self._launcher.fork(self.version.folder, environment, link, listeners)
            except OSError as error:
                logger.warning("processor is started without the nursery", function=self.version.name, why=str(error))
        environment["HEADRACE_AGENT_FD"] = str(link)
        environment["HEADRACE_LISTEN"] = ",".join(f"{trigger}:{descriptor}" for trigger, descriptor in listeners)
        self._child = subprocess.Popen(
            [*self._launcher.command, str(self.version.folder)],
            stdin=subprocess.DEVNULL,
            pass_fds=(link, *(descriptor for _, descriptor in listeners)),
            env=environment,
            process_group=0,
        )
        return self._child.pid

    # What it is told

    def go(self, triggers: list[str]) -> None:
        """Start these triggers."""
        self.started.update(triggers)
        self._link.send({"command": "go", "triggers": triggers})
        if self.phase is Phase.READY and self.started >= self.triggers.keys():
            self.phase = Phase.SERVING
            self.since = time.monotonic()

    def release(self) -> None:
        """Close intake, drain, exit: within the termination time of its triggers, else it is ended harder."""
        if self.phase in (Phase.LEAVING, Phase.ENDED):
            return
        self._leave(self.version.termination_s + self._launcher.margin_s)
        self._link.send({"command": "release"})

    def end(self) -> None:
        """SIGTERM now, SIGKILL after a margin: for one that never took an event, or that does not listen."""
        if self.phase is not Phase.ENDED:
            self._leave(0.0)

    def kill(self) -> None:
        """SIGKILL of the whole group, now."""
        if self.phase is not Phase.ENDED:
            self._leave(0.0)
            self._signal(signal.SIGKILL)

    def _leave(self, seconds: float) -> None:
        self.phase = Phase.LEAVING
        self._end = _End(time.monotonic() + seconds)
        self._changed()

    def _signal(self, number: signal.Signals) -> None:
        """The number is ours until the reaper has waited for it, so it cannot hit another process."""
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    # Time

    @property
    def due(self) -> float | None:
        """Monotonic time at which `advance` has to be called, or None."""
        if self.phase is Phase.STARTING:
            return self.since + self.version.function.spec.readiness_timeout_s
        return self._end.due if self._end and self.phase is Phase.LEAVING else None

    def advance(self, now: float) -> None:
        """Take the step that is due."""
        if self.due is None or now < self.due:
            return
        if self.phase is Phase.STARTING:
            seconds = self.version.function.spec.readiness_timeout_s
            self.failure = Failure("function", f"Function wasn't ready in time ({seconds:g} s)")
            self.end()
        if self._end:
            self._harder(self._end, now)

    def _harder(self, end: _End, now: float) -> None:
        number = signal.SIGTERM if end.step == 0 else signal.SIGKILL
        if end.step or self.started:
            logger.warning(
                "processor does not end when asked",
                function=self.version.name,
                pid=self.pid,
                signal=number.name,
            )
        self._signal(number)
        end.step += 1
        end.due = now + self._launcher.margin_s

    # What it says

    def holds(self, trigger: str) -> bool:
        """May the source of that trigger still be open here?"""
        return self.phase is not Phase.ENDED and trigger in self.started and trigger not in self.released

    @property
    def waiting(self) -> bool:
        """Ready, and not yet told to start all of its triggers."""
        return self.phase is Phase.READY

    @property
    def reason(self) -> str:
        """Why it ended, for people."""
        if self.failure and self.failure.what:
            return self.failure.what
        if self.broken:
            return self.broken
        if self.exit_code is not None and self.exit_code < 0:
            return f"the processor was killed by {_signal_name(-self.exit_code)}"
        return f"the processor ended with exit code {self.exit_code}"

    @property
    def hopeless(self) -> bool:
        """Starting it again would not heal it."""
        return self.exit_code == EXIT_CONFIGURATION

    async def statistics(self, timeout_s: float = 1.0) -> dict[str, Any]:
        """What it counts, or an empty dictionary when it does not answer in time."""
        if self.phase is Phase.ENDED or self._link.closed:
            return {}
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self._link.send({"command": "statistics", "id": number})
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return {}
        finally:
            self._questions.pop(number, None)

    def _heard(self, message: Message) -> None:
        event, trigger = message.get("event"), self.triggers.get(str(message.get("trigger")))
        if event == "ready" and self.phase is Phase.STARTING:
            self.phase = Phase.READY
        elif event == "failed":
            self.failure = Failure(str(message.get("code", "")), str(message.get("what", "")))
        elif event == "failing":
            self._heard_failing(str(message.get("pool", "")), str(message.get("why", "")))
        elif event == "statistics":
            self._answer(message)
            return
        elif trigger is not None:
            self._heard_of(trigger, message)
        self._changed()

    def _heard_failing(self, pool: str, why: str) -> None:
        if why:
            self.failing[pool] = why
        else:
            self.failing.pop(pool, None)

    def _heard_of(self, trigger: TriggerState, message: Message) -> None:
        match message["event"]:
            case "serving":
                trigger.up, trigger.address, trigger.why = True, str(message.get("address", "")), ""
            case "down":
                trigger.up, trigger.why = False, str(message.get("why", ""))
            case "released":
                trigger.up = False
                self.released.add(str(message["trigger"]))

    def _answer(self, message: Message) -> None:
        answer = self._questions.get(int(message.get("id") or 0))
        statistics = message.get("statistics")
        if answer is not None and not answer.done():
            answer.set_result(statistics if isinstance(statistics, dict) else {})

    def _link_ended(self, why: str) -> None:
        """A processor closes its link by ending; one that lives on without it can no longer be told anything."""
        self.broken = why
        if self.phase is not Phase.ENDED:
            self._leave(0.0 if why else self._launcher.margin_s)

    def _ended(self, exit_code: int) -> None:
        if self._child:
            self._child.returncode = exit_code
        self._link.drain()
        self._link.close()
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result({})
        self._launcher.records.remove(self.pid)
        kill_marked(self._mark)
        if exit_code != 0:
            self._launcher.swept()
        self.exit_code = exit_code
        self.phase = Phase.ENDED
        self._changed()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
