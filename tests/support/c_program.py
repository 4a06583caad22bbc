"""Compiles and runs the C tests against the C core, without Python in between."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.tools import need

ROOT = Path(__file__).parents[2]
C_TESTS = ROOT / "tests" / "c"
CORE = ROOT / "shmem"
SANITIZERS = {
    "plain": ["-O2"],
    "address": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # -Wno-tsan: gcc says that it does not know fences; what they order is also ordered by tail's release and acquire
    "thread": ["-O1", "-g", "-fsanitize=thread", "-Wno-tsan"],
}


def build(
    to: Path, *sources: str, flags: list[str] | None = None, core: Path = CORE, compiler: str = "gcc", link: bool = True
) -> Path:
    """Compile files of tests/c (with the core, when `link`) into the program `to`. AssertionError: what gcc said."""
    need(compiler)
    files = [str(C_TESTS / name) for name in sources]
    if link:
        files += [str(core / name) for name in ("channel.c", "record.c", "apart.c")]
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", *(flags or ["-O2"]), f"-I{core}", *files]
    done = subprocess.run([*command, "-o", str(to), "-lpthread"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


def run(program: Path, *arguments: str, timeout_s: float = 50) -> subprocess.CompletedProcess[str]:
    """Run it without address randomisation: older thread sanitizers do not bear that of newer kernels."""
    command = [need("setarch", "util-linux"), "-R", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=os.environ | {"LC_ALL": "C"})
