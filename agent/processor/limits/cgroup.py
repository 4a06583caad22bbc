"""Control groups, versions 1 and 2 behind one face: where we may make groups, and what each version calls things.

Why: the kernel counts and bounds memory, processor time and processes of a whole tree of processes only in groups.
Version 2 is what systemd delegates (`Delegate=yes`); version 1 is what older devices have; some have both at once.
Flow: `hierarchies` looks once -> [hierarchy] -> groups of a function and of its workers -> counts, kill, remove.
Promise: only groups named `headrace-...` inside our own group are touched. A group of a process that is gone is swept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PREFIX = "headrace-"
OURS = "headrace"
"""Version 2 has processes only in leaves: those of the agent's own group move into this one beside the functions'."""

_PERIOD_US = 100_000
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Counts:
    """What a group has counted since it was made."""

    memory_bytes: int = 0
    oom_kills: int = 0
    refused_forks: int = 0
    throttled_s: float = 0.0


class Hierarchy(Protocol):
    """One tree of groups. `controllers` of memory, cpu, pids; `own` the group that ours are made in."""

    @property
    def name(self) -> str: ...
    @property
    def own(self) -> Path: ...
    @property
    def controllers(self) -> frozenset[str]: ...

    def open_function(self, name: str, *, memory_bytes: int, cores: float) -> Path:
        """Make a function's group. Zeroes are no limits. Raises OSError."""

    def open_worker(self, function: Path, name: str, *, processes: int) -> Path:
        """Make a group in it for one worker. Raises OSError."""

    def counts(self, group: Path) -> Counts: ...

    def kill(self, group: Path) -> None:
        """SIGKILL all that is in that group, and what they start meanwhile."""


@dataclass(frozen=True, slots=True)
class Version2:
    """The unified tree."""

    own: Path
    controllers: frozenset[str]
    name: str = "cgroup v2"

    def open_function(self, name: str, *, memory_bytes: int, cores: float) -> Path:
        _enable(self.own, self.controllers)
        group = _make(self.own / name)
        if memory_bytes and "memory" in self.controllers:
            (group / "memory.max").write_text(str(memory_bytes))
            _try(group / "memory.swap.max", "0")  # a leak that goes into swap wears out the card before it ends
        if cores and "cpu" in self.controllers:
            (group / "cpu.max").write_text(f"{max(1000, round(cores * _PERIOD_US))} {_PERIOD_US}")
        _enable(group, self.controllers - {"cpu"})
        return group

    def open_worker(self, function: Path, name: str, *, processes: int) -> Path:
        group = _make(function / name)
        _try(group / "memory.oom.group", "1")  # one killed alone would leave the rest of its worker in pieces
        if processes and "pids" in self.controllers:
            (group / "pids.max").write_text(str(processes))
        return group

    def counts(self, group: Path) -> Counts:
        return Counts(
            memory_bytes=_number(_read(group / "memory.current")),
            oom_kills=_field(group / "memory.events", "oom_kill"),
            refused_forks=_field(group / "pids.events", "max"),
            throttled_s=_field(group / "cpu.stat", "throttled_usec") / 1e6,
        )

    def kill(self, group: Path) -> None:
        if not (group / "cgroup.kill").exists() or not _try(group / "cgroup.kill", "1"):
            _kill_members(group)


@dataclass(frozen=True, slots=True)
class Version1:
    """One tree a controller, or one for a few that are mounted together."""

    own: Path
    controllers: frozenset[str]
    name: str = "cgroup v1"

    def open_function(self, name: str, *, memory_bytes: int, cores: float) -> Path:
        group = _make(self.own / name)
        if memory_bytes and "memory" in self.controllers:
            (group / "memory.limit_in_bytes").write_text(str(memory_bytes))
            _try(group / "memory.memsw.limit_in_bytes", str(memory_bytes))  # no swap on top of it
        if cores and "cpu" in self.controllers:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(max(1000, round(cores * _PERIOD_US))))
        return group

    def open_worker(self, function: Path, name: str, *, processes: int) -> Path:
        group = _make(function / name)
        if processes and "pids" in self.controllers:
            (group / "pids.max").write_text(str(processes))
        return group

    def counts(self, group: Path) -> Counts:
        return Counts(
            memory_bytes=_number(_read(group / "memory.usage_in_bytes")),
            oom_kills=_field(group / "memory.oom_control", "oom_kill"),
            refused_forks=_field(group / "pids.events", "max"),
            throttled_s=_field(group / "cpu.stat", "throttled_time") / 1e9,
        )

    def kill(self, group: Path) -> None:
        if (group / "pids.max").exists():
            _try(group / "pids.max", "0")  # nothing in it can start another
        _kill_members(group)


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def hierarchies(wanted: frozenset[str], proc: Path = Path("/proc/self")) -> list[Hierarchy]:
    """Trees in which we may make groups and that have some of the wanted controllers; none is there twice."""
    found: list[Hierarchy] = []
    left = wanted
    for hierarchy in _writable(proc):
        controllers = hierarchy.controllers & left
        if controllers:
            found.append(type(hierarchy)(hierarchy.own, controllers))
            left -= controllers
    return found


def _writable(proc: Path) -> Iterator[Version1 | Version2]:
    groups = [line.split(":", 2) for line in _read(proc / "cgroup").splitlines()]
    for kind, options, mounted, point in _mounts(_read(proc / "mountinfo")):
        for _, controllers, path in groups:
            names = frozenset(controllers.split(",")) - {""}
            if (kind == "cgroup2" and not names) or (kind == "cgroup" and names and names <= options):
                own = _own_group(point, mounted, path)
                if kind == "cgroup2":
                    own = own.parent if own.name == OURS else own
                    names = frozenset(_read(own / "cgroup.controllers").split())
                if names and _may_write(own) and _may_write(own / "cgroup.procs"):
                    yield Version2(own, names) if kind == "cgroup2" else Version1(own, names)


def _mounts(mountinfo: str) -> list[tuple[str, frozenset[str], str, Path]]:
    """Kind, options, mounted part and mount point of the trees; version 2 first, which is preferred."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            found.append((kind, frozenset(options.split(",")), fields[3], Path(fields[4])))
    return sorted(found, key=lambda item: item[0], reverse=True)


def _own_group(point: Path, mounted: str, path: str) -> Path:
    """Our group below the mount point; in a container the path may be one of the host's that is not to be seen here."""
    relative = os.path.relpath(path, mounted)
    own = point if relative.startswith("..") else point / relative
    return own if own.is_dir() else point


def _enable(group: Path, controllers: frozenset[str]) -> None:
    """Let the groups inside have these controllers. Raises OSError where that is not delegated."""
    switch = group / "cgroup.subtree_control"
    missing = controllers - set(_read(switch).split())
    if not missing:
        return
    order = " ".join(f"+{name}" for name in sorted(missing))
    for _ in range(_ROUNDS):
        try:
            _write(switch, order)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        _move_members(group, _make(group / OURS))  # some may be forking: look again
    raise OSError(errno.EBUSY, f"{group} has processes of its own and cannot have groups with limits")


def _move_members(source: Path, target: Path) -> None:
    for pid in _read(source / "cgroup.procs").split():
        _try(target / "cgroup.procs", pid)  # it may have ended


def _kill_members(group: Path) -> None:
    for _ in range(_ROUNDS):
        members = _read(group / "cgroup.procs").split()
        if not members:
            return
        for pid in members:
            _kill_member(int(pid), group)


def _kill_member(pid: int, group: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # Looked at again with the descriptor in hand: the number may have changed hands in between.
            if f"/{group.parent.name}/{group.name}" in _read(Path(f"/proc/{pid}/cgroup")):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def sweep(hierarchy: Hierarchy) -> None:
    """End and remove what processors left that are gone."""
    for group in hierarchy.own.glob(f"{PREFIX}*-*-*"):
        pid, start = group.name.removeprefix(PREFIX).split("-")[:2]
        if not pid.isdigit() or start_time(int(pid)) == start:
            continue
        for inner in [item for item in group.iterdir() if item.is_dir()]:
            hierarchy.kill(inner)
            remove(inner)
        remove(group)


def remove(group: Path) -> bool:
    """False while something in it has not ended."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def start_time(pid: int) -> str:
    """Ticks from boot to the start of that process; empty when there is none, or only its remains."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in ("Z", "X") else ""


def _make(group: Path) -> Path:
    group.mkdir(exist_ok=True)
    return group


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _try(file: Path, text: str) -> bool:
    """Not every kernel has every file."""
    try:
        file.write_text(text)
    except OSError:
        return False
    return True


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _field(file: Path, name: str) -> int:
    for line in _read(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return 0
