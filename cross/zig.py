"""The compiler: zig's C compiler, from a wheel, for every target.

One download compiles for all of them and links against any C library version, so a wheel built here also runs on an old
device. A cross gcc from Debian can not do armv6: its start-up objects and libgcc are armv7 already.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cross.targets import GLIBC, WORK, Target

VERSION = "0.17.1"


def zig() -> Path:
    """The program, downloaded at the first call (about 410 MB on disk)."""
    folder = WORK / "tools" / f"zig-{VERSION}"
    program = folder / "ziglang" / "zig"
    if not program.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*command, f"ziglang=={VERSION}"], check=True)
    return program


def cache() -> dict[str, str]:
    """Environment for the compiler: the C libraries it builds at its first use stay in our folder."""
    return {"ZIG_GLOBAL_CACHE_DIR": str(WORK / "zig-cache"), "ZIG_LOCAL_CACHE_DIR": str(WORK / "zig-cache")}


def compiler(target: Target, *, static: bool = False) -> list[str]:
    """The C compiler's command for that target: against glibc, or static against musl."""
    library = f"musl{target.abi}" if static else f"gnu{target.abi}.{GLIBC}"
    cpu = [f"-mcpu={target.cpu}"] if target.cpu else []
    return [str(zig()), "cc", "-target", f"{target.zig}-{library}", *cpu, *(["-static"] if static else [])]
