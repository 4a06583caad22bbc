"""Control groups: which trees are found, and what is written where. On trees of plain files, as no machine has both."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.processor.limits import cgroup
from agent.processor.limits.cgroup import Version1, Version2, hierarchies
from tests.support.nobody import as_nobody

ALL = frozenset(["memory", "cpu", "pids"])


class Machine:
    """A /proc/self and the trees it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.mounts: list[str] = []
        self.groups: list[str] = []

    def mount(self, point: str, kind: str, options: str, mounted: str = "/") -> Path:
        path = self.folder / point
        path.mkdir(parents=True)
        self.mounts.append(f"30 20 0:1 {mounted} {path} rw,relatime shared:1 - {kind} cgroup rw,{options}")
        self._save()
        return path

    def member(self, line: str, group: Path, controllers: str = "") -> Path:
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("")
        if controllers:
            (group / "cgroup.controllers").write_text(controllers)
            (group / "cgroup.subtree_control").write_text("")
        self.groups.append(line)
        self._save()
        return group

    def _save(self) -> None:
        (self.proc / "mountinfo").write_text("25 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "\n".join(self.mounts))
        (self.proc / "cgroup").write_text("\n".join(self.groups) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def delegated(machine: Machine, controllers: str = "cpuset cpu io memory pids") -> Path:
    point = machine.mount("unified", "cgroup2", "nsdelegate")
    return machine.member("0::/system.slice/headrace.service", point / "system.slice/headrace.service", controllers)


def test_version_2_where_it_is_delegated(machine: Machine) -> None:
    own = delegated(machine)
    (found,) = hierarchies(ALL, machine.proc)
    assert (found.name, found.own, found.controllers) == ("cgroup v2", own, ALL)


def test_a_function_s_group_in_version_2(machine: Machine) -> None:
    own = delegated(machine)
    (found,) = hierarchies(ALL, machine.proc)
    group = found.open_function("headrace-1-2-f", memory_bytes=64 << 20, cores=0.5)
    assert group == own / "headrace-1-2-f"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (group / "memory.max").read_text() == str(64 << 20)
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert (group / "cgroup.subtree_control").read_text() == "+memory +pids"
    worker = found.open_worker(group, "worker-0-1", processes=20)
    assert (worker / "pids.max").read_text() == "20"
    assert (worker / "memory.oom.group").read_text() == "1"


def test_processes_of_our_own_group_make_room_in_version_2(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No group may have both processes and groups with controllers: ours are moved into one beside the functions'."""
    own = delegated(machine)
    (own / "cgroup.procs").write_text("11\n12\n")
    moved: list[str] = []
    real_try = cgroup._try

    def busy_until_moved(file: Path, text: str) -> None:
        if file == own / "cgroup.subtree_control" and len(moved) < 2:
            raise OSError(errno.EBUSY, "busy")
        file.write_text(text)

    def move(file: Path, text: str) -> bool:
        if file == own / "headrace" / "cgroup.procs":
            moved.append(text)
        return real_try(file, text)

    monkeypatch.setattr(cgroup, "_write", busy_until_moved)
    monkeypatch.setattr(cgroup, "_try", move)
    (found,) = hierarchies(ALL, machine.proc)
    found.open_function("headrace-1-2-f", memory_bytes=1 << 20, cores=0)
    assert moved == ["11", "12"]


def test_what_was_moved_once_finds_the_same_place_again(machine: Machine) -> None:
    point = machine.mount("unified", "cgroup2", "nsdelegate")
    service = machine.member("1:name=systemd:/x", point / "system.slice/headrace.service", "memory pids")
    machine.member("0::/system.slice/headrace.service/headrace", service / "headrace")
    (found,) = hierarchies(ALL, machine.proc)
    assert (found.own, found.controllers) == (service, {"memory", "pids"})


def test_version_1_has_a_tree_for_each(machine: Machine) -> None:
    memory = machine.mount("memory", "cgroup", "memory")
    cpu = machine.mount("cpu,cpuacct", "cgroup", "cpu,cpuacct")
    machine.member("4:memory:/agent", memory / "agent")
    machine.member("2:cpu,cpuacct:/", cpu)
    found = {tuple(item.controllers): item for item in hierarchies(ALL, machine.proc)}
    assert {key: item.own for key, item in found.items()} == {("memory",): memory / "agent", ("cpu",): cpu}
    group = found[("memory",)].open_function("headrace-1-2-f", memory_bytes=64 << 20, cores=0.5)
    assert (group / "memory.limit_in_bytes").read_text() == str(64 << 20)
    assert not (group / "cpu.cfs_quota_us").exists()
    group = found[("cpu",)].open_function("headrace-1-2-f", memory_bytes=64 << 20, cores=0.5)
    assert (group / "cpu.cfs_quota_us").read_text() == "50000"
    assert not (group / "memory.limit_in_bytes").exists()


def test_both_versions_at_once_share_the_work(machine: Machine) -> None:
    delegated(machine, "memory")
    pids = machine.mount("pids", "cgroup", "pids")
    machine.member("8:pids:/", pids)
    memory = machine.mount("memory", "cgroup", "memory")
    machine.member("4:memory:/", memory)
    found = {item.name: item.controllers for item in hierarchies(ALL, machine.proc)}
    assert found == {"cgroup v2": {"memory"}, "cgroup v1": {"pids"}}


def test_a_path_of_the_host_inside_a_container_is_the_mount_point(machine: Machine) -> None:
    memory = machine.mount("memory", "cgroup", "memory", "/docker/abc")
    machine.member("4:memory:/docker/abc", memory)
    assert [item.own for item in hierarchies(ALL, machine.proc)] == [memory]
    machine.groups[:] = ["4:memory:/somewhere/else"]
    machine._save()
    assert [item.own for item in hierarchies(ALL, machine.proc)] == [memory]


def test_a_tree_that_is_not_ours_is_left_alone(machine: Machine) -> None:
    own = delegated(machine)
    own.chmod(0o555)
    with as_nobody(own):
        assert hierarchies(ALL, machine.proc) == []


def test_no_tree_at_all(machine: Machine) -> None:
    machine._save()
    assert hierarchies(ALL, machine.proc) == []
    assert hierarchies(ALL, machine.folder / "nothing") == []


def test_what_the_kernel_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n")
    (tmp_path / "pids.events").write_text("max 7\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nnr_throttled 3\nthrottled_usec 1500000\n")
    assert Version2(tmp_path, ALL).counts(tmp_path) == cgroup.Counts(1000, 2, 7, 1.5)
    (tmp_path / "memory.usage_in_bytes").write_text("2000\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    (tmp_path / "cpu.stat").write_text("nr_periods 2\nnr_throttled 1\nthrottled_time 2500000000\n")
    assert Version1(tmp_path, ALL).counts(tmp_path) == cgroup.Counts(2000, 4, 7, 2.5)
    assert Version1(tmp_path, ALL).counts(tmp_path / "none") == cgroup.Counts()


def test_groups_of_processors_that_are_gone_are_swept(tmp_path: Path) -> None:
    mine = f"headrace-{os.getpid()}-{cgroup.start_time(os.getpid())}-f"
    for name in (
        mine,
        "headrace-999999999-1-f",
        f"headrace-{os.getpid()}-1-f",
        "headrace-x-y-z",
        "another",
        "headrace",
    ):
        (tmp_path / name / "worker-0-1").mkdir(parents=True)
    cgroup.sweep(Version1(tmp_path, ALL))
    assert {item.name for item in tmp_path.iterdir()} == {mine, "headrace-x-y-z", "another", "headrace"}
