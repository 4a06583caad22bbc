"""What a function asks for, and what its workers are told."""

from __future__ import annotations

import json
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loguru import logger

from agent.model.errors import SpecError
from agent.model.load import load_text
from agent.model.spec import FunctionSpec
from agent.processor.limits import accounts
from agent.processor.limits.accounts import identity
from agent.processor.limits.cgroup import Version1, Version2
from agent.processor.limits.limits import CONFINE, VARIABLE, Limits


def spec(**keys: Any) -> FunctionSpec:
    given = {"runtime": "python", "handler": "m:h", **keys}
    return load_text(msgspec.json.encode({"metadata": {"name": "f"}, "spec": given}), "f").function.spec


def told(limits: Limits) -> dict[str, Any]:
    return json.loads(limits.worker(0).environment[VARIABLE])


def test_nothing_asked_for_is_nothing_at_all(tmp_path: Path) -> None:
    limits = Limits("f", spec(), logger, [Version2(tmp_path, frozenset(["memory"]))])
    worker = limits.worker(0)
    assert (worker.environment, worker.argv(("python", "x")), worker.owner) == ({}, ("python", "x"), (-1, -1))
    assert list(tmp_path.iterdir()) == [] and limits.statistics() == {}
    assert worker.verdict(-signal.SIGKILL) == ""


def test_limits_become_groups_where_there_are_some(tmp_path: Path) -> None:
    asked = spec(resources={"limits": {"memory": "64Mi", "cpu": "250m"}}, limits={"processes": 9})
    limits = Limits("f", asked, logger, [Version2(tmp_path, frozenset(["memory", "cpu", "pids"]))])
    (group,) = tmp_path.glob("headrace-*-f")
    assert told(limits) == {"join": [str(group / "worker-0-1" / "cgroup.procs")]}
    assert limits.worker(0).argv(("node", "w.js"))[-3:] == (str(CONFINE), "node", "w.js")
    statistics = limits.statistics()
    assert statistics["memory"] == {"bytes": 64 << 20, "by": "cgroup v2", "used": 0, "hits": 0}
    assert statistics["cpu"] == {"cores": 0.25, "by": "cgroup v2", "throttled_s": 0.0, "hits": 0}
    assert statistics["processes"] == {"most": 9, "by": "cgroup v2", "hits": 0}


def test_limits_become_resource_limits_where_there_are_no_groups() -> None:
    asked = spec(
        resources={"limits": {"memory": "64Mi", "cpu": "250m"}},
        limits={"processes": 9, "openFiles": 32, "fileSize": "1Mi", "cpuTime": "1500ms"},
    )
    limits = Limits("f", asked, logger, [])
    assert told(limits) == {"rlimits": {"NOFILE": 32, "FSIZE": 1 << 20, "CPU": 2, "DATA": 64 << 20, "NPROC": 9}}
    assert limits.statistics()["memory"]["by"] == "RLIMIT_DATA"
    assert limits.statistics()["cpu"]["by"] == ""


def test_what_a_worker_ran_into_is_told_and_counted(tmp_path: Path) -> None:
    asked = spec(resources={"limits": {"memory": "64Mi"}}, limits={"processes": 9, "fileSize": "1k", "cpuTime": "3s"})
    limits = Limits("f", asked, logger, [Version1(tmp_path, frozenset(["memory", "pids"]))])
    worker = limits.worker(0)
    (group,) = tmp_path.glob("headrace-*/worker-0-1")
    assert worker.verdict(0) == ""
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert worker.verdict(-signal.SIGKILL) == "over its limit of memory, 64Mi"
    (group / "memory.oom_control").unlink()
    (group / "pids.events").write_text("max 5\n")
    assert limits.statistics()["processes"]["hits"] == 1  # while it lives
    assert worker.verdict(1) == "over its limit of processes, 9"
    (group / "pids.events").unlink()
    assert worker.verdict(-signal.SIGXCPU) == "over its limit of cpuTime, 3 s"
    assert worker.verdict(-signal.SIGXFSZ) == "over its limit of fileSize, 1000"
    assert {name: item["hits"] for name, item in limits.statistics().items()} == {
        "memory": 1,
        "processes": 1,
        "fileSize": 1,
        "cpuTime": 1,
    }


def test_a_group_that_cannot_be_made_is_a_warning_and_the_next_best_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    asked = spec(resources={"limits": {"memory": "64Mi"}})
    warnings: list[str] = []
    sink = logger.add(warnings.append, level="WARNING")
    limits = Limits("f", asked, logger, [Version1(tmp_path / "file", frozenset(["memory"]))])
    logger.remove(sink)
    assert told(limits) == {"rlimits": {"DATA": 64 << 20}}
    assert "no control group can be made" in warnings[0]


class TestIdentity:
    @pytest.fixture(autouse=True)
    def root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts.os, "geteuid", lambda: 0)

    def test_nobody_else(self) -> None:
        assert identity(spec().security_context) is None

    def test_names_and_numbers(self) -> None:
        nobody = pwd.getpwnam("nobody")
        given = spec(securityContext={"runAsUser": "nobody", "supplementalGroups": ["root", 77, 77]}).security_context
        assert identity(given) == accounts.Identity(nobody.pw_uid, nobody.pw_gid, (0, 77))
        given = spec(securityContext={"runAsUser": "65000", "runAsGroup": 12}).security_context
        assert identity(given) == accounts.Identity(65000, 12, ())

    def test_a_user_the_device_does_not_know_has_a_group_of_the_same_number(self) -> None:
        assert identity(spec(securityContext={"runAsUser": 4242424}).security_context) == accounts.Identity(
            4242424, 4242424, ()
        )

    @pytest.mark.parametrize("key", ["runAsUser", "runAsGroup"])
    def test_an_unknown_name_is_an_error_that_says_how_to_mend_it(self, key: str) -> None:
        with pytest.raises(SpecError, match=r"no (user|group) 'nobody-of-that-name'.*add --system"):
            identity(spec(securityContext={key: "nobody-of-that-name"}).security_context)

    def test_only_root_becomes_somebody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts.os, "geteuid", lambda: 1000)
        with pytest.raises(SpecError, match="runs as root"):
            identity(spec(securityContext={"runAsUser": 1}).security_context)
        monkeypatch.setattr(accounts.os, "getegid", lambda: pwd.getpwnam("nobody").pw_gid)
        monkeypatch.setattr(accounts.os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
        assert identity(spec(securityContext={"runAsUser": "nobody"}).security_context) is None


def test_another_user_s_worker_is_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    worker = Limits("f", spec(securityContext={"runAsUser": 12}), logger, []).worker(0)
    assert not worker.forkable and worker.owner == (12, 12)
    assert Limits("f", spec(limits={"openFiles": 32}), logger, []).worker(0).forkable
