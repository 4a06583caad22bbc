"""How much memory a process holds, and how much there is."""

from __future__ import annotations

from pathlib import Path


def held_bytes(pid: int) -> int:
    """What would be free without it: its own pages, and its part of shared ones (PSS). 0 when it is gone.

    Where the kernel does not count that: all resident pages, shared ones too.
    """
    for file, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        found = _kilobytes(Path(f"/proc/{pid}/{file}"), key)
        if found:
            return found << 10
    return 0


def available_bytes() -> int:
    """What can be had without swapping; very much where the kernel does not say."""
    return (_kilobytes(Path("/proc/meminfo"), "MemAvailable:") << 10) or 1 << 60


def _kilobytes(file: Path, key: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
