"""Compiles the C core with every warning an error. `python -m tests.support.c_check`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-fsyntax-only"]


def main() -> int:
    """0 when nothing is complained of."""
    sources = [str(path) for path in sorted(Path("shmem").glob("*.c"))]
    include = sysconfig.get_paths()["include"]
    return subprocess.call(["gcc", *FLAGS, "-DPy_LIMITED_API=0x030B0000", f"-I{include}", *sources])


if __name__ == "__main__":
    sys.exit(main())
