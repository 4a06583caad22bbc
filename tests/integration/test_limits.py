"""Limits with real workers and the control groups of this machine: over one, that worker ends, and is said why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Result
from agent.processor.limits import cgroup
from agent.processor.limits.cgroup import Version2
from tests.support import agent
from tests.support.eventually import eventually, wait_until
from tests.support.processor import RunningProcessor, running

GROUPS = {name for item in cgroup.hierarchies(frozenset(["memory", "cpu", "pids"])) for name in item.controllers}
ROOT = os.geteuid() == 0


def needs(*controllers: str) -> pytest.MarkDecorator:
    missing = set(controllers) - GROUPS
    return pytest.mark.skipif(bool(missing), reason=f"no control group with {', '.join(missing)} to write to here")


def limit(f: RunningProcessor, name: str) -> dict[str, Any]:
    return f.processor.statistics()["limits"][name]  # type: ignore[no-any-return]


def own_groups() -> list[Path]:
    found = cgroup.hierarchies(frozenset(["memory", "cpu", "pids"]))
    return [path for item in found for path in item.own.glob(f"headrace-{os.getpid()}-*")]


LEAK = """
    kept = []
    def handler(context, event):
        if event.body == b"leak":
            while True:
                kept.append(bytearray(1 << 20))
        return event.body
"""


@needs("memory")
async def test_over_its_memory_that_worker_ends_alone(tmp_path: Path) -> None:
    async with running(tmp_path, LEAK, spec={"resources": {"limits": {"memory": "64Mi"}}}, numWorkers=2) as f:
        before = set(f.workers())
        assert (await f.call(b"leak")).result is Result.WORKER_DIED
        assert (await f.call(b"x")).body == b"x"
        await eventually(lambda: len(f.workers()) == 2)
        assert len(before & set(f.workers())) == 1
        assert limit(f, "memory")["hits"] == 1
        assert 0 < limit(f, "memory")["used"] < 64 << 20
    assert own_groups() == []


@needs("cpu")
async def test_processor_time_is_bound(tmp_path: Path) -> None:
    code = """
        import time
        def handler(context, event):
            begun = time.process_time()
            while time.process_time() - begun < 0.1:
                pass
    """
    async with running(tmp_path, code, spec={"resources": {"limits": {"cpu": "100m"}}}) as f:
        begun = time.monotonic()
        await f.call()
        await f.call()
        assert time.monotonic() - begun > 0.8
        assert limit(f, "cpu")["throttled_s"] > 0.5


FORKS = """
    import os, time
    def handler(context, event):
        if event.body == b"bomb":
            for _ in range(200):
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(100)
                    os._exit(0)
        return event.body
"""


@needs("pids")
async def test_over_its_processes_the_fork_fails_and_all_end_with_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path, FORKS, spec={"limits": {"processes": 20}}, numWorkers=2) as f:
        outcome = await f.call(b"bomb")
        assert outcome.status == 500 and b"Resource temporarily unavailable" in outcome.body
        assert limit(f, "processes")["hits"] == 1
        assert (await f.call(b"x")).body == b"x"
        (group,) = {path for top in own_groups() for path in top.glob("worker-*") if len(members(path)) > 1}
        assert len(members(group)) == 20
        for pid in f.workers():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not group.exists())
        await eventually(lambda: len(f.workers()) == 2)
        assert limit(f, "processes")["hits"] == 1
    assert own_groups() == []


def members(group: Path) -> list[str]:
    return (group / "cgroup.procs").read_text().split()


async def test_over_its_open_files_opening_fails(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    kept = [open('/dev/null') for _ in range(100)]\n"
    async with running(tmp_path, code, spec={"limits": {"openFiles": 32}}) as f:
        outcome = await f.call()
        assert outcome.status == 500 and b"Too many open files" in outcome.body


async def test_over_its_file_size_writing_fails_or_ends_it(tmp_path: Path) -> None:
    code = f"""
        import signal
        def handler(context, event):
            if event.body == b"signal":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # as in every language but Python
            with open({str(tmp_path / "big")!r}, "wb") as file:
                file.write(bytes(1 << 20))
    """
    async with running(tmp_path, code, spec={"limits": {"fileSize": "100Ki"}}) as f:
        outcome = await f.call()
        assert outcome.status == 500 and b"File too large" in outcome.body
        assert (await f.call(b"signal")).result is Result.WORKER_DIED
        await eventually(lambda: limit(f, "fileSize")["hits"] == 1)


async def test_over_its_cpu_time_it_ends(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    while event.body:\n        pass\n"
    async with running(tmp_path, code, spec={"limits": {"cpuTime": "1s"}}) as f:
        assert (await f.call(b"x")).result is Result.WORKER_DIED
        assert limit(f, "cpuTime")["hits"] == 1
        assert (await f.call(b"")).ok


async def test_without_control_groups_the_process_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "hierarchies", lambda wanted: [])
    async with running(tmp_path, LEAK, spec={"resources": {"limits": {"memory": "64Mi"}}}) as f:
        outcome = await f.call(b"leak")
        assert outcome.status == 500 and b"MemoryError" in outcome.body
        assert limit(f, "memory")["by"] == "RLIMIT_DATA"


async def test_a_limit_too_low_to_start_with_is_the_reason_given(tmp_path: Path) -> None:
    from agent.model.errors import FunctionError

    if "memory" not in GROUPS:
        pytest.skip("no control group with memory to write to here")
    with pytest.raises(FunctionError, match="over its limit of memory, 2Mi"):
        async with running(tmp_path, LEAK, spec={"resources": {"limits": {"memory": "2Mi"}}}):
            pass
    assert own_groups() == []


async def test_bodies_are_bound_both_ways(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    return bytes(int(event.body.decode().split()[0]))\n"
    async with running(tmp_path, code, spec={"maxBodyBytes": 100_000}) as f:
        assert (await f.call(b"100000")).body == bytes(100_000)
        outcome = await f.call(b"100001")
        assert outcome.status == 500 and b"maxBodyBytes" in outcome.body
        assert (await f.call(b"1 " + b"x" * 99_998)).body == b"\0"
        assert (await f.call(b"1 " + b"x" * 99_999)).result is Result.TOO_LARGE


WHO = """
    import json, os
    def handler(context, event):
        if event.body.startswith(b"large"):
            return event.body
        found = {"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "status": {}}
        for line in open("/proc/self/status"):
            if line.startswith(("NoNewPrivs", "CapEff")):
                found["status"] |= [line.split()]
        try:
            open(event.body.decode()).read()
            found["read"] = True
        except PermissionError:
            found["read"] = False
        return found
"""


OTHERS_PYTHON = Path("/usr/bin/python3")
"""One that other users may run: the one that runs the tests may lie in somebody's home."""


def others_python() -> bool:
    program = "import sys; sys.exit(sys.version_info < (3, 11))"
    return ROOT and OTHERS_PYTHON.exists() and subprocess.run([OTHERS_PYTHON, "-c", program]).returncode == 0


somebody_else = pytest.mark.skipif(not others_python(), reason="needs root, and /usr/bin/python3 from 3.11")


def let_others_in(folder: Path, code: Path) -> None:
    """Others may read what is there, and the function has a Python that they may run."""
    for path in (folder, *folder.parents[:2]):
        if path.stat().st_mode & 0o055 != 0o055:
            path.chmod(0o755)
    (code / ".venv" / "bin").mkdir(parents=True)
    (code / ".venv" / "pyvenv.cfg").write_text(f"home = {OTHERS_PYTHON.parent}\nversion = 3.11.2\n")
    (code / ".venv" / "bin" / "python").symlink_to(OTHERS_PYTHON)


@somebody_else
async def test_workers_run_as_who_they_are_told_to(tmp_path: Path) -> None:
    import json

    let_others_in(tmp_path, tmp_path / "code")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    given = {"securityContext": {"runAsUser": 65534, "runAsGroup": 65533, "supplementalGroups": [20]}}
    async with running(tmp_path, WHO, spec=given, numWorkers=2) as f:
        found = json.loads((await f.call(str(tmp_path / "secret").encode())).body)
        assert (found["uid"], found["gid"], found["groups"]) == ([65534] * 3, [65533] * 3, [20])
        assert found["status"] == {"NoNewPrivs:": "1", "CapEff:": "0000000000000000"}
        assert found["read"] is False
        large = b"large" + os.urandom(3_000_000)  # bodies in segments of their own, both ways
        assert (await f.call(large)).body == large
        (pid, _) = f.workers()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(f.workers()) == 2 and pid not in f.workers())
    assert not list(Path("/dev/shm").glob(f"headrace-{os.getpid()}-*"))


@somebody_else
def test_somebody_else_s_worker_dies_with_its_processor(tmp_path: Path) -> None:
    """The kernel forgets a parent-death signal when the user changes: it must be asked for after that."""
    let_others_in(tmp_path, tmp_path)
    (tmp_path / "main.py").write_text("import time\ndef handler(context, event):\n    time.sleep(600)\n")
    (tmp_path / "function.yaml").write_text(
        "metadata: {name: f}\nspec:\n  handler: main:handler\n  runtime: python\n"
        "  securityContext: {runAsUser: 65534}\n  triggers: {t: {kind: cron, attributes: {interval: 50ms}}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "run", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        found = wait_until(lambda: workers_of(process.pid), within_s=20)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in found))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not pytest's own: every run of pytest takes those from others again."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@somebody_else
def test_somebody_else_reaches_the_code_that_an_agent_keeps(open_folder: Path) -> None:
    """The agent's copy lies below its state folder, in which others must not look around."""
    with agent.running(agent.Agent(open_folder)) as keeper:
        folder = keeper.functions / "f"
        folder.mkdir()
        let_others_in(open_folder, folder)
        (folder / "main.py").write_text("def handler(context, event):\n    return 'here'\n")
        (folder / "function.yaml").write_text(
            "metadata: {name: f}\nspec:\n  handler: main:handler\n  runtime: python\n"
            "  securityContext: {runAsUser: 65534}\n  triggers: {t: {kind: cron, attributes: {interval: 50ms}}}\n"
        )
        keeper.start()
        keeper.serving("f")
        wait_until(lambda: keeper.status("f")["triggers"]["t"]["handled"] > 0)
        assert [path.stat().st_mode & 0o777 for path in (keeper.state, keeper.run / "logs")] == [0o711, 0o700]


def workers_of(pid: int) -> list[int]:
    """Its children that have become somebody else."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            user = (path / "status").read_text().split("Uid:")[1].split()[0]
        except (OSError, IndexError):
            continue
        if parent == pid and user == "65534":
            found.append(int(path.name))
    return found


@pytest.mark.skipif(not ROOT or not Path("/sys/fs/cgroup/unified/cgroup.procs").exists(), reason="no version 2 here")
def test_the_real_version_2_makes_kills_and_removes_groups() -> None:
    """Here it has no controllers, which is what a fake tree is for; the groups themselves are real."""
    found = Version2(Path("/sys/fs/cgroup/unified"), frozenset())
    group = found.open_function(
        f"headrace-{os.getpid()}-{cgroup.start_time(os.getpid())}-real", memory_bytes=0, cores=0
    )
    worker = found.open_worker(group, "worker-0-1", processes=0)
    confine = Path(__file__).parents[2] / "runtimes" / "confine.py"
    told = f'{{"join": ["{worker}/cgroup.procs"]}}'
    script = "sleep 100 & setsid sleep 100 & exec sleep 100"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(confine), "sh", "-c", script], env={**os.environ, "HEADRACE_CONFINEMENT": told}
    )
    try:
        wait_until(lambda: len(members(worker)) == 3)
        assert not cgroup.remove(group)
        found.kill(worker)
        assert process.wait(5) == -signal.SIGKILL
        wait_until(lambda: cgroup.remove(worker))
        assert cgroup.remove(group)
    finally:
        process.kill()
        process.wait()


async def test_a_group_that_was_removed_meanwhile_says_so(tmp_path: Path) -> None:
    """Somebody cleans up /sys/fs/cgroup: workers that cannot be confined do not run."""
    if "pids" not in GROUPS:
        pytest.skip("no control group with pids to write to here")
    async with running(tmp_path, FORKS, spec={"limits": {"processes": 20}}) as f:
        (pid,) = f.workers()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: f.workers() not in ([], [pid]))
        assert (await asyncio.wait_for(f.call(b"x"), 10)).body == b"x"
