"""The Python runtime: which interpreter runs a function's worker, and in what environment.

Flow: the processor calls `launch` once and starts each worker with the result; the worker program is `worker.py`.
Promise: the function's own virtual environment wins; then the Python that its spec names, where this machine has it;
then ours. Workers need Python 3.11 or later: the channel's extension is built for the stable interface of that.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from loguru import logger

from agent.model.errors import AgentError, SpecError
from agent.model.runtime import Launch
from agent.model.spec import Function

WORKER = Path(__file__).resolve().parent / "worker.py"
OLDEST = (3, 11)
PROBE_TIMEOUT_S = 10.0
LATEST_VERSION = "-1"  # what nuclio gives a function that was never published
INHERITED = frozenset(
    [
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH", "LANG", "LANGUAGE", "TZ", "TZDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    ]
)
"""What a worker gets of the agent's environment, beside LC_*: where this machine keeps things, no secret of ours."""


def launch(function: Function, code_dir: Path) -> Launch:
    """See `agent.model.runtime`. Raises SpecError when the function's virtual environment is too old or broken.

    The function's folder is not on PYTHONPATH yet: a `queue.py` in it would stand before the standard library's while
    the interpreter and the worker start. The worker adds it before it imports the function.
    """
    venv = _virtual_environment(code_dir)
    interpreter = str(venv / "bin" / "python") if venv else interpreter_for(function.spec.runtime)
    environment = _environment(function, venv, interpreter)
    return Launch((interpreter, str(WORKER)), environment, _forkable(function, interpreter))


def _forkable(function: Function, interpreter: str) -> bool:
    """Whether a fork of our own interpreter is the same: not where a variable is read only when Python starts."""
    return interpreter == sys.executable and not any(item.name.startswith("PYTHON") for item in function.spec.env)


def interpreter_for(runtime: str) -> str:
    """The interpreter of a function without a virtual environment: of the version named, or ours with a warning."""
    version = _version(runtime)
    if version in (None, sys.version_info[:2]):
        return sys.executable
    found = _find(version) if version >= OLDEST else None
    if found is None:
        logger.warning(
            "no Python of the function's version here, its worker runs under ours",
            wanted=runtime,
            ours=f"{sys.version_info[0]}.{sys.version_info[1]}",
        )
    return found or sys.executable


def _version(runtime: str) -> tuple[int, int] | None:
    """(3, 12) of `python:3.12` or `python:3.12.1`; None where no minor version is named."""
    _, _, text = runtime.partition(":")
    numbers = text.split(".")[:2]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and all(map(str.isdecimal, numbers)) else None


@functools.cache
def _find(version: tuple[int, int]) -> str | None:
    """`python3.X` on the PATH, if it runs: a shim may be there for a version that is not."""
    path = shutil.which(f"python{version[0]}.{version[1]}")
    if path is None:
        return None
    program = f"import sys; sys.exit(sys.version_info[:2] != {version})"
    try:
        done = subprocess.run([path, "-I", "-c", program], capture_output=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def _virtual_environment(code_dir: Path) -> Path | None:
    for name in (".venv", "venv"):
        folder = code_dir / name
        if (folder / "pyvenv.cfg").is_file():
            _check(folder)
            return folder.absolute()
    return None


def _check(folder: Path) -> None:
    fix = f"make it again: rm -r {folder} && python3 -m venv {folder}"
    if not os.access(folder / "bin" / "python", os.X_OK):
        raise SpecError("the function's virtual environment has no working bin/python", where=str(folder), fix=fix)
    version = _version(":" + _venv_version(folder))
    if version is not None and version < OLDEST:
        what = f"the function's virtual environment has Python {version[0]}.{version[1]}; workers need 3.11 or later"
        raise SpecError(what, where=str(folder), fix=fix)


def _venv_version(folder: Path) -> str:
    """The `version` (venv) or `version_info` (virtualenv, uv) in pyvenv.cfg; empty when there is none."""
    for line in (folder / "pyvenv.cfg").read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() in ("version", "version_info"):
            return value.strip()
    return ""


def _environment(function: Function, venv: Path | None, interpreter: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    if interpreter == sys.executable and "PYTHONHOME" in os.environ:
        env["PYTHONHOME"] = os.environ[
            "PYTHONHOME"
        ]  # it names our interpreter's library: without it, it does not start
    if venv is not None:
        env["VIRTUAL_ENV"] = str(venv)
        env["PATH"] = os.pathsep.join([str(venv / "bin"), env.get("PATH", os.defpath)])
    env |= {
        "NUCLIO_FUNCTION_NAME": function.metadata.name,
        "NUCLIO_FUNCTION_DESCRIPTION": function.spec.description,
        "NUCLIO_FUNCTION_VERSION": LATEST_VERSION,
        "NUCLIO_FUNCTION_HANDLER": function.spec.handler,
        "NUCLIO_HANDLER": function.spec.handler,
    }
    env |= {variable.name: variable.value for variable in function.spec.env}
    env["HEADRACE_CHANNEL_LIB"] = channel_library()
    return env


def channel_library() -> str:
    """Path of the channel's extension. Raises AgentError when it was not built."""
    found = importlib.util.find_spec("shmem._channel")
    if found is None or found.origin is None:
        raise AgentError(
            "the channel's C extension is not built", fix="pip install -e . (needs gcc and Python headers)"
        )
    return found.origin
