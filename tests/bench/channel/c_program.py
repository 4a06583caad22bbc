"""Builds the benchmark's C programs, once a run, in a folder that goes when the run ends."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.bench.channel.peer import Unfit

_ROOT = Path(__file__).parents[3]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="headrace-bench-")


@functools.cache
def built(source: str, *more: str) -> Path:
    """The program made of `source`, of this folder, and of `more`, of `shmem`. Raises Unfit without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unfit("no C compiler")
    program = Path(_folder().name, Path(source).stem)
    sources = [f"tests/bench/channel/{source}", *[f"shmem/{name}" for name in more]]
    command = [compiler, "-std=gnu11", "-O2", "-Ishmem", "-o", str(program), *sources]
    made = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if made.returncode:
        raise Unfit(f"{source} does not compile: {made.stderr.strip()[:200]}")
    return program
