"""One function kept alive: which version should run, which processors do, and the next step between the two.

Why: a change, a crash and a stop can come at any moment and in any order. So there are no scripts of steps: whatever
happens only asks for another look, and `reconcile` looks at everything and does what is missing.
Flow: drop-ins, commands -> [function] -> processors; their messages, exits and deadlines ask for the next look.
Promise: an old version serves until the new one is ready; a trigger's source is opened by one processor at a time; a
function that cannot run is tried less and less often, says why, and disturbs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from loguru import logger

from agent.model.errors import AgentError
from agent.supervisor.backoff import Backoff, Policy
from agent.supervisor.process import Phase, Processor
from agent.supervisor.sockets import AddressTaken, Sockets
from agent.supervisor.version import Attempts, Version

MOST_LEAVING = 3
"""Processors of one function that may drain at a time; more changes than that wait."""


class Launch(Protocol):
    """Starts a processor, see `process.Launcher`."""

    def __call__(
        self, version: Version, listeners: list[tuple[str, int]], changed: Callable[[], None]
    ) -> Processor: ...


class SupervisedFunction:
    """Owned by one task, which runs `run`. `unused` is called with a version that will never be started again."""

    def __init__(
        self, name: str, launch: Launch, sockets: Sockets, policy: Policy, unused: Callable[[Version], None]
    ) -> None:
        self.name = name
        self.restarts = 0
        self.current: Processor | None = None
        self.next: Processor | None = None
        self.leaving: list[Processor] = []
        self.stopping = False
        self._launch = launch
        self._sockets = sockets
        self._policy = policy
        self._unused = unused
        self._desired: Version | None = None
        self._good: Version | None = (
            None  # the last one that served for a stable time: what a hopeless one falls back to
        )
        self._known: list[Version] = []
        self._rejected = ""
        self._why = ""
        self._wake = asyncio.Event()
        self._log = logger.bind(function=name)

    # What is wanted

    def apply(self, version: Version) -> None:
        """Run this version from now on. What serves already is not swapped for its own twin."""
        self._rejected, self._why, self.stopping = "", "", False
        self._wake.set()
        if self.current is not None and self.current.version.digest == version.digest:
            self._desired = self.current.version
            self._unused(version)
            return
        version.attempts = Attempts(Backoff(self._policy))
        self._known.append(version)
        self._desired = version

    def reject(self, message: str) -> None:
        """What the operator wrote last cannot be used: whatever runs goes on, and the state says so."""
        self._rejected = message
        self._wake.set()

    def accept(self) -> None:
        """What the operator wrote is again what runs."""
        self._rejected = ""

    def stop(self) -> None:
        """Drain and end everything; `run` returns."""
        self.stopping = True
        self._wake.set()

    def kill(self) -> None:
        """As `stop`, without waiting for anything."""
        self.stop()
        for processor in self.processors():
            processor.kill()

    # What is

    def processors(self) -> list[Processor]:
        return [item for item in (self.current, self.next, *self.leaving) if item is not None]

    @property
    def desired(self) -> Version | None:
        return self._desired

    @property
    def disabled(self) -> bool:
        return self._desired is not None and self._desired.function.spec.disable

    @property
    def state(self) -> str:
        """starting, ready, serving, failing, draining, stopped, failed or parked."""
        if self.current is not None and not self.stopping:
            failing = self.current.failing and self.current.phase is Phase.SERVING
            return "failing" if failing else self.current.phase.value
        if self.stopping or self.disabled:
            return "draining" if self.processors() else "stopped"
        if self.next is not None:
            return "starting"
        if self._desired is None:
            return "failed"
        return "parked" if self._desired.attempts.backoff.parked else "failed" if self._why else "starting"

    @property
    def message(self) -> str:
        """Why it is not as it should be; empty when all is well."""
        failing = "; ".join(self.current.failing.values()) if self.current is not None else ""
        return self._rejected or self._why or failing

    # The one task

    async def run(self) -> None:
        """Until stopped and every processor has ended. Cancelled, it kills what is left."""
        try:
            while True:
                self._wake.clear()
                delay = self.reconcile(time.monotonic())
                if self.stopping and not self.processors():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
        finally:
            for processor in self.processors():
                processor.kill()
            self._sockets.keep(self.name, ())

    def reconcile(self, now: float) -> float | None:
        """Do what can be done now; seconds until something is due by itself, or None."""
        for processor in self.processors():
            processor.advance(now)
        self._collect(now)
        self._retire()
        self._start(now)
        self._promote(now)
        self._hand_over()
        self._tidy()
        due = list(self._due(now))
        return max(0.0, min(due) - now) if due else None

    def _collect(self, now: float) -> None:
        """Take note of processors that ended, or are ending by themselves."""
        for processor in (self.next, self.current):
            if processor is not None and processor.phase in (Phase.LEAVING, Phase.ENDED):
                self._fell(processor, now)
        self.leaving = [item for item in self.leaving if item.phase is not Phase.ENDED]

    def _fell(self, processor: Processor, now: float) -> None:
        """One that nobody asked to leave. While it is still on its way out its exit code is not known."""
        if processor.phase is not Phase.ENDED:
            return
        attempts, why = processor.version.attempts, processor.reason
        if processor is self.current:
            self.current = None
            self.restarts += 1
            if self._stable(processor, now):
                self._good = processor.version
                attempts.backoff.reset()
        else:
            self.next = None
        self._failed(processor.version, why, now, hopeless=processor.hopeless or self._policy_says_no(processor))

    def _policy_says_no(self, processor: Processor) -> bool:
        policy = processor.version.function.spec.restart_policy
        if policy.name == "no" or (policy.name == "on-failure" and processor.exit_code == 0):
            return True
        return 0 < policy.maximum_retry_count <= processor.version.attempts.backoff.failures

    def _failed(self, version: Version, why: str, now: float, *, hopeless: bool) -> None:
        attempts = version.attempts
        was_parked = attempts.backoff.parked
        self._why = why
        if hopeless:
            attempts.given_up = why
            self._log.error("function cannot run until it is changed", why=why, file=version.origin)
            return
        delay = attempts.backoff.failed()
        attempts.not_before = now + delay
        if attempts.backoff.parked:
            self._why = f"parked after {attempts.backoff.failures} failures in a row: {why}"
            if not was_parked:
                self._log.error("function is parked", why=why, file=version.origin, again_in_s=round(delay, 1))
        else:
            self._log.warning("function will be started again", why=why, again_in_s=round(delay, 2))

    def _unavailable(self, version: Version, why: str, now: float) -> None:
        """What it needs from the system is not there now. Said once a change, tried again for ever."""
        delay = version.attempts.backoff.unavailable()
        version.attempts.not_before = now + delay
        if why != self._why:
            self._why = why
            self._log.warning("function has to wait", why=why, file=version.origin)

    def _retire(self) -> None:
        """Let go of what should no longer run."""
        if self.stopping or self.disabled:
            for processor in (self.current, self.next):
                if processor is not None:
                    self._dismiss(processor)
        elif self.next is not None and self.next.version not in (self._desired, self._good):
            self._dismiss(self.next)

    def _dismiss(self, processor: Processor) -> None:
        if processor is self.current:
            self.current = None
        if processor is self.next:
            self.next = None
        self.leaving.append(processor)
        if processor.started:
            processor.release()
        else:
            processor.end()

    def _candidate(self, now: float) -> Version | None:
        """The version to start now."""
        desired, good = self._desired, self._good
        if self.stopping or self.disabled or desired is None or len(self.leaving) >= MOST_LEAVING:
            return None
        if self.current is not None and self.current.version is desired:
            return None
        if desired.attempts.allowed(now):
            return desired
        if self.current is None and desired.attempts.blocked and good is not None and good.attempts.allowed(now):
            return good
        return None

    def _start(self, now: float) -> None:
        version = self._candidate(now)
        if version is None or (self.next is not None and self.next.version is version):
            return
        if self.next is not None:
            self._dismiss(self.next)
        try:
            listeners = self._sockets.open(version)
            self.next = self._launch(version, listeners, self._wake.set)
        except AddressTaken as error:
            # Our own old version listens on an overlapping address: it has to make room before the new one can start.
            if error.function == self.name and self.current is not None:
                self._dismiss(self.current)
            self._unavailable(version, str(error), now)
        except AgentError as error:
            if error.retry:
                self._unavailable(version, str(error), now)
            else:
                self._failed(version, str(error), now, hopeless=True)
        except OSError as error:
            self._unavailable(version, f"cannot start a processor: {error}", now)

    def _promote(self, now: float) -> None:
        """The new one is ready: the old one lets go, trigger by trigger."""
        if self.next is None or self.next.phase is not Phase.READY:
            return
        successor, self.next = self.next, None
        if self.current is not None:
            if self._stable(self.current, now):
                self._good = self.current.version
            self._dismiss(self.current)
        self.current = successor
        self._good = self._good or successor.version

    def _stable(self, processor: Processor, now: float) -> bool:
        return bool(processor.started) and now - processor.since >= self._policy.stable_s

    def _hand_over(self) -> None:
        processor = self.current
        if processor is None or not processor.waiting:
            return
        free = [
            name
            for name in processor.triggers
            if name not in processor.started and not any(old.holds(name) for old in self.leaving)
        ]
        if free or not processor.triggers:
            processor.go(free)
        if processor.phase is Phase.SERVING:
            if processor.version is self._desired:
                self._why = ""
            self._log.info("function is serving", pid=processor.pid, file=processor.version.origin)

    def _tidy(self) -> None:
        """Close sockets and forget versions that nothing can come back to."""
        running = [item.version for item in self.processors()]
        listening = [item.version for item in self.processors() if item not in self.leaving or _intakes(item)]
        if self._desired and not (self.stopping or self.disabled or self._desired.attempts.blocked):
            listening.append(self._desired)
        self._sockets.keep(self.name, listening)
        keep = [*running, self._desired, self._good]
        for version in [item for item in self._known if item not in keep]:
            self._known.remove(version)
            self._unused(version)

    def _due(self, now: float) -> Iterator[float]:
        for processor in self.processors():
            if processor.due is not None:
                yield processor.due
        desired = self._desired
        if desired is None or self.stopping or self.disabled or (self.current and self.current.version is desired):
            return
        if self.next is None and not desired.attempts.given_up and desired.attempts.not_before > now:
            yield desired.attempts.not_before
        good = self._good
        fallback = good is not None and self.current is None and self.next is None and not good.attempts.given_up
        if good is not None and fallback and good.attempts.not_before > now:
            yield good.attempts.not_before

    # What it counts

    async def statistics(self) -> dict[str, Any]:
        """State, and what the current processor counts, in the shape of `/statistics`."""
        processor = self.current or self.next
        counted = await processor.statistics() if processor is not None else {}
        of_triggers = counted.get("triggers", {})
        version = processor.version if processor is not None else self._desired
        triggers = {}
        for name, spec in version.triggers.items() if version else ():
            state = processor.triggers[name] if processor is not None else None
            triggers[name] = {
                "kind": spec.kind,
                "address": state.address if state else "",
                "up": bool(state and state.up),
                "why": state.why if state else "",
                "handled": 0,
                "failed": 0,
                "counters": {},
                "p50_us": 0,
                "p99_us": 0,
                "last": "",
                **of_triggers.get(name, {}),
            }
        return {
            **{key: value for key, value in counted.items() if key != "triggers"},
            "state": self.state,
            "message": self.message,
            "pid": processor.pid if processor is not None else 0,
            "restarts": self.restarts,
            "triggers": triggers,
        }


def _intakes(processor: Processor) -> bool:
    """May it still take events?"""
    return any(processor.holds(name) for name in processor.triggers)
