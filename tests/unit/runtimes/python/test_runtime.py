"""Which interpreter and environment a worker gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from agent.model.errors import SpecError
from agent.model.runtime import languages, runtime_for
from agent.model.spec import EnvironmentVariable, Function, FunctionSpec, Metadata
from runtimes.python import runtime


def function(runtime_name: str = "python", **env: str) -> Function:
    variables = [EnvironmentVariable(name=name, value=value) for name, value in env.items()]
    spec = FunctionSpec(handler="main:handler", runtime=runtime_name, env=variables, description="d")
    return Function(metadata=Metadata(name="lamp"), spec=spec)


def venv(folder: Path, version: str, key: str = "version") -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\n{key} = {version}\n")
    return folder


def test_found_by_name() -> None:
    for name in ("python", "python:3.11", "Python:3.9"):
        assert runtime_for(name).launch is runtime.launch
    assert "python" in languages()
    with pytest.raises(SpecError, match=r"no runtime for 'cobol:85'; known runtimes: .*python"):
        runtime_for("cobol:85")


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_AGENT_FD", "7")
    launch = runtime.launch(function(COLOUR="red", HOME="/h"), tmp_path)
    assert launch.argv == (sys.executable, str(runtime.WORKER))
    env = launch.env
    assert (env["NUCLIO_FUNCTION_NAME"], env["NUCLIO_FUNCTION_HANDLER"]) == ("lamp", "main:handler")
    assert (env["NUCLIO_FUNCTION_DESCRIPTION"], env["NUCLIO_FUNCTION_VERSION"]) == ("d", "-1")
    assert (env["COLOUR"], env["HOME"], env["PATH"]) == ("red", "/h", os.environ["PATH"])
    assert "HEADRACE_AGENT_FD" not in env and Path(env["HEADRACE_CHANNEL_LIB"]).is_file()


def test_of_the_agents_environment_only_what_every_program_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "LC_TIME": "C",
        "TZ": "UTC",
        "https_proxy": "http://p",
        "NO_PROXY": "*",
        "SSL_CERT_FILE": "/c",
        "TMPDIR": "/t",
    }
    kept_back = {"AWS_SECRET_ACCESS_KEY": "s", "PYTHONPATH": "/p", "VIRTUAL_ENV": "/v", "XDG_RUNTIME_DIR": "/x"}
    monkeypatch.setattr(os, "environ", given | kept_back | {"HEADRACE__ADMIN__PORT": "1", "NOTIFY_SOCKET": "@n"})
    env = runtime.launch(function(VIRTUAL_ENV="mine"), tmp_path).env
    assert {name: env[name] for name in given} == given
    ours = {"HEADRACE_CHANNEL_LIB", "VIRTUAL_ENV", *(name for name in env if name.startswith("NUCLIO_"))}
    assert env.keys() - given.keys() == ours and env["VIRTUAL_ENV"] == "mine"


@pytest.mark.parametrize("name", [".venv", "venv"])
def test_the_functions_virtual_environment_wins(tmp_path: Path, name: str) -> None:
    folder = venv(tmp_path / name, "3.12.1")
    launch = runtime.launch(function("python:3.11"), tmp_path)
    assert launch.argv[0] == str(folder / "bin" / "python")
    assert launch.env["VIRTUAL_ENV"] == str(folder) and launch.env["PATH"].startswith(f"{folder}/bin:")


@pytest.mark.parametrize("key", ["version", "version_info"])
def test_a_virtual_environment_that_is_too_old(tmp_path: Path, key: str) -> None:
    venv(tmp_path / "venv", "3.9.18.final.0", key)
    with pytest.raises(SpecError, match=r"has Python 3.9; workers need 3.11 or later; make it again: rm -r"):
        runtime.launch(function(), tmp_path)


def test_a_virtual_environment_without_python(tmp_path: Path) -> None:
    folder = venv(tmp_path / "venv", "3.12")
    (folder / "bin" / "python").unlink()
    with pytest.raises(SpecError, match="no working bin/python"):
        runtime.launch(function(), tmp_path)


@pytest.fixture
def warnings() -> Any:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING")
    yield lines
    logger.remove(sink)


def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime._find.cache_clear()
    return path


def test_the_version_named_by_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    path = on_path(tmp_path, monkeypatch, "python3.99", "exit 0")
    assert runtime.interpreter_for("python:3.99") == str(path)
    assert runtime.interpreter_for("python") == runtime.interpreter_for("python:3") == sys.executable
    assert runtime.interpreter_for(f"python:3.{sys.version_info[1]}.4") == sys.executable
    assert not warnings


@pytest.mark.parametrize("wanted", ["3.99", "3.98", "3.9"])
def test_no_such_python_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str], wanted: str) -> None:
    on_path(tmp_path, monkeypatch, "python3.99", "exit 127")  # a shim for a version that is not installed
    assert runtime.interpreter_for(f"python:{wanted}") == sys.executable
    assert len(warnings) == 1 and "no Python of the function's version" in warnings[0]


def test_by_hand_the_program_says_what_starts_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(runtime.WORKER)], capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 2 and "headrace run" in done.stderr
