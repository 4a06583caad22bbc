"""What one function's workers may use, and who says which limit a worker ran into.

Flow: FunctionSpec -> [limits] -> a `WorkerLimits` for each start of a worker -> confine.py binds the worker -> its end
is judged here. Memory, processor time and the number of processes are bound by control groups where we may make them
(version 2 where delegated, else version 1), by resource limits of the single process otherwise; the rest always by the
latter. A function that asks for nothing gets nothing: no group, no file, no program in between.
Promise: over a limit that worker ends alone (or its call fails, where the limit is one that fails calls); the log and
the statistics say which limit it was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model.quantity import size_text
from agent.model.spec import FunctionSpec
from agent.processor.limits import cgroup
from agent.processor.limits.accounts import Identity, identity
from agent.processor.limits.cgroup import Hierarchy

if TYPE_CHECKING:
    from loguru import Logger

VARIABLE = "HEADRACE_CONFINEMENT"
CONFINE = Path(__file__).resolve().parents[3] / "runtimes" / "confine.py"
_LAST_ROUNDS = 200
_ROUND_S = 0.005

_MEMORY_OFF = "the kernel's memory controller is off: cgroup_enable=memory on its command line"


class Limits:
    """Of one function, made once by its processor. Raises SpecError when `securityContext` cannot be had."""

    def __init__(self, function: str, spec: FunctionSpec, log: Logger, found: Iterable[Hierarchy] | None = None):
        self.hits: Counter[str] = Counter()
        self.identity: Identity | None = identity(spec.security_context)
        self._spec = spec
        self._log = log
        self._groups: list[tuple[Hierarchy, Path]] = []  # of the function
        self._live: set[WorkerLimits] = set()
        self._dead: list[tuple[Hierarchy, Path]] = []  # of workers, not quite gone
        self._numbers = 0
        self._open(function, found)
        self._rlimits = self._resource_limits()

    def _open(self, function: str, found: Iterable[Hierarchy] | None) -> None:
        memory, cores = self._spec.resources.limits.memory_bytes, self._spec.resources.limits.cores
        amounts = {"memory": memory, "cpu": cores, "pids": self._spec.limits.processes}
        wanted = frozenset(name for name, amount in amounts.items() if amount)
        if not wanted:
            return
        name = f"{cgroup.PREFIX}{os.getpid()}-{cgroup.start_time(os.getpid())}-{function}"
        for hierarchy in found if found is not None else cgroup.hierarchies(wanted):
            try:
                cgroup.sweep(hierarchy)
                group = hierarchy.open_function(name, memory_bytes=memory, cores=cores)
                self._groups.append((hierarchy, group))
            except OSError as error:
                self._log.warning("no control group can be made", place=str(hierarchy.own), reason=str(error))

    def by(self, controller: str) -> str:
        """ "cgroup v2", "cgroup v1", or empty where no group binds that."""
        return next((item.name for item, _ in self._groups if controller in item.controllers), "")

    def _resource_limits(self) -> dict[str, int]:
        own, memory = self._spec.limits, self._spec.resources.limits.memory_bytes
        found = {"NOFILE": own.open_files, "FSIZE": own.file_bytes, "CPU": -(-(own.cpu_time or 0) // 1)}
        if memory and not self.by("memory"):
            # Not RLIMIT_AS: it counts every library and mapping, and runtimes that reserve address space do not start.
            found["DATA"] = memory
            self._log.warning("memory is limited for each process by itself: no control group", fix=_MEMORY_OFF)
        if self._spec.resources.limits.cores and not self.by("cpu"):
            self._log.warning("the cpu limit is not enforced: no control group", fix="run the agent with Delegate=yes")
        if own.processes and not self.by("pids"):
            found["NPROC"] = own.processes
            if (self.identity.uid if self.identity else os.geteuid()) == 0:
                self._log.warning("the limit of processes does not bind root: no control group", fix="runAsUser")
        return {name: int(most) for name, most in found.items() if most}

    def worker(self, index: int) -> WorkerLimits:
        """For the next start of worker number `index`. Raises OSError when its group cannot be made."""
        self._bury()
        self._numbers += 1
        name = f"worker-{index}-{self._numbers}"
        groups = [
            (hierarchy, hierarchy.open_worker(group, name, processes=self._spec.limits.processes or 0))
            for hierarchy, group in self._groups
        ]
        worker = WorkerLimits(self, groups, self._rlimits)
        if groups:
            self._live.add(worker)
        return worker

    def room_for(self, size: int) -> bool:
        """May the workers together use so many bytes more?"""
        most = self._spec.resources.limits.memory_bytes
        used = sum(item.counts(group).memory_bytes for item, group in self._groups if "memory" in item.controllers)
        return not most or not self.by("memory") or used + size <= most

    def text(self, limit: str) -> str:
        """That limit, for people."""
        limits, own = self._spec.resources.limits, self._spec.limits
        amounts = {
            "memory": size_text(limits.memory_bytes),
            "cpu": f"{limits.cores:g}",
            "processes": str(own.processes),
            "fileSize": size_text(own.file_bytes),
            "cpuTime": f"{own.cpu_time or 0:g} s",
        }
        return f"over its limit of {limit}, {amounts[limit]}"

    def ended(self, worker: WorkerLimits) -> None:
        """A worker has ended: end what is left in its groups."""
        if worker in self._live:
            self._live.remove(worker)
            for hierarchy, group in worker.groups:
                hierarchy.kill(group)
            self._dead += worker.groups
            self._bury()

    def _bury(self) -> None:
        self._dead = [(hierarchy, group) for hierarchy, group in self._dead if not cgroup.remove(group)]

    def statistics(self) -> dict[str, Any]:
        """Each limit given: how much, bound by what, how much is used, how often it was hit. Empty without limits."""
        limits, own = self._spec.resources.limits, self._spec.limits
        found: dict[str, Any] = {}
        counts = {name: hierarchy.counts(group) for hierarchy, group in self._groups for name in hierarchy.controllers}
        if limits.memory_bytes:
            found["memory"] = {"bytes": limits.memory_bytes, "by": self.by("memory") or "RLIMIT_DATA"}
            found["memory"] |= {"used": counts["memory"].memory_bytes} if "memory" in counts else {}
        if limits.cores:
            found["cpu"] = {"cores": limits.cores, "by": self.by("cpu")}
            found["cpu"] |= {"throttled_s": counts["cpu"].throttled_s} if "cpu" in counts else {}
        if own.processes:
            found["processes"] = {"most": own.processes, "by": self.by("pids") or "RLIMIT_NPROC"}
        for limit, most in (("openFiles", own.open_files), ("fileSize", own.file_bytes), ("cpuTime", own.cpu_time)):
            found |= {limit: {"most": most}} if most else {}
        live = Counter(name for worker in self._live for name in worker.hit())
        return {name: item | {"hits": self.hits[name] + live[name]} for name, item in found.items()}

    def close(self) -> None:
        """Remove all groups; call it after the workers have been reaped. Waits a second at most."""
        for _ in range(_LAST_ROUNDS):
            self._bury()
            if not self._dead:
                break
            time.sleep(_ROUND_S)
        for _, group in self._groups:
            if not cgroup.remove(group):
                self._log.warning("a control group is not empty and stays", place=str(group))
        self._groups = []


class WorkerLimits:
    """Of one worker process. `argv` and `environment` are what it is started with instead."""

    def __init__(self, limits: Limits, groups: list[tuple[Hierarchy, Path]], rlimits: dict[str, int]) -> None:
        self._limits = limits
        self.groups = groups
        what: dict[str, Any] = {}
        if groups:
            what["join"] = [str(group / "cgroup.procs") for _, group in groups]
        if rlimits:
            what["rlimits"] = rlimits
        if limits.identity:
            what["identity"] = [limits.identity.uid, limits.identity.gid, limits.identity.groups]
        self._told = json.dumps(what) if what else ""

    @property
    def owner(self) -> tuple[int, int]:
        """User and group who must be able to open the worker's channel; -1 for ours."""
        who = self._limits.identity
        return (who.uid, who.gid) if who else (-1, -1)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that tell the worker how to confine itself."""
        return {VARIABLE: self._told} if self._told else {}

    def argv(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command, behind the program that confines it."""
        return (sys.executable, "-I", "-S", str(CONFINE), *argv) if self._told else argv

    @property
    def forkable(self) -> bool:
        """Another user's worker is a fresh process: a fork would hold memory that is not that user's to read."""
        return self._limits.identity is None

    def verdict(self, status: int) -> str:
        """Which limit ended it, for people; empty where none did. Call it once, when the worker has ended."""
        hit = self.hit()
        hit += ["cpuTime"] if status == -signal.SIGXCPU else []
        hit += ["fileSize"] if status == -signal.SIGXFSZ else []
        for name in hit:
            self._limits.hits[name] += 1
        return "; ".join(self._limits.text(name) for name in hit)

    def hit(self) -> list[str]:
        """Limits that its groups have run into so far."""
        counts = [hierarchy.counts(group) for hierarchy, group in self.groups]
        found = ["memory"] if any(item.oom_kills for item in counts) else []
        return found + (["processes"] if any(item.refused_forks for item in counts) else [])

    def end(self) -> None:
        """The worker has been reaped: end what it left, and its groups."""
        self._limits.ended(self)
