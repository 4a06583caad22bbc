"""Runs the channel's tests on emulated devices: `make cross-test`, or `python -m cross.run_tests [TARGET...]`.

Three steps a target: the C core between two threads, on the very processor; the extension imported by Debian's Python
of that architecture; tests/unit/shmem with it. What emulation can not show is the order of memory accesses (see
`cross.emulate`): for that stand the comments beside each atomic in channel.c, the model in tests/model, and
tests/integration/test_disassembly.py, which looks for the instructions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cross.debian import userland
from cross.emulate import inside, missing, static
from cross.targets import ROOT, WORK, Target, chosen

RECORDS = 200_000
_PACKAGES = ["python3", "python3-venv", "dash", "coreutils"]
_COPIED = ("agent", "shmem", "runtimes", "bindings", "tests", "pyproject.toml")
_SEEN = """
from shmem import _channel
import platform, sys
print(f"Python {platform.python_version()} on {platform.machine()} has {_channel.__file__}")
"""


def stress(target: Target) -> str:
    """The C core, producer and consumer as two threads. Returns what the program says of itself."""
    return carry_out(static(target, target.stress, str(RECORDS)))


def imported(target: Target) -> str:
    """The extension in the foreign Python. Returns which Python, and which file it loaded."""
    return carry_out(inside(target, "python3", "-c", _SEEN, env={"PYTHONPATH": "/headrace"}))


def unit_tests(target: Target) -> str:
    """tests/unit/shmem. Returns pytest's closing line; raises CalledProcessError with pytest's output shown."""
    command = ["sh", "-c", 'cd /headrace && exec python3 -m pytest -p no:cacheprovider "$@"', "sh"]
    # Emulation is slow, so the limit for a test that hangs is longer. test_c.py is about compilers of this machine.
    arguments = ["--timeout=600", "--ignore=tests/unit/shmem/test_c.py", "tests/unit/shmem"]
    output = carry_out(inside(target, *command, *arguments, env={"PYTHONPATH": "/opt/pytest:/headrace"}))
    return output.strip().splitlines()[-1]


STEPS: tuple[Callable[[Target], str], ...] = (stress, imported, unit_tests)


def prepare(target: Target) -> None:
    """The userland with pytest and this project in it, and in the project the extension of that target."""
    if not target.extension.exists():
        raise SystemExit(f"{target.name} is not built: make cross")
    folder = userland(target.debian, _PACKAGES)
    if not (folder / "opt" / "pytest").exists():
        shutil.copytree(_pytest(), folder / "opt" / "pytest")
    project = folder / "headrace"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, project / name)
    shutil.copy(target.extension, project / "shmem" / target.extension.name)


def _pytest() -> Path:
    """pytest and what it needs are Python alone, so this machine's pip can fetch them for every architecture."""
    folder = WORK / "tools" / "pytest"
    if not folder.exists():
        part = folder.with_suffix(".part")
        command = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(part)]
        subprocess.run([*command, "pytest>=8", "pytest-timeout>=2.3"], check=True)
        part.rename(folder)
    return folder


def carry_out(command: list[str]) -> str:
    """Runs it and returns what it printed. Raises CalledProcessError, its output shown on stderr."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    return done.stdout.strip()


def main(names: list[str]) -> int:
    """0 when every step of every chosen target passed."""
    for target in chosen(names):
        lack = missing(target)
        if lack:
            raise SystemExit(f"{target.name}: {lack}")
        prepare(target)
        for step in STEPS:
            started = time.monotonic()
            print(f"{target.name}: {step.__name__}: {step(target)} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
