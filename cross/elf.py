"""Looks at what the compiler made, with readelf and nm: the right processor, no library that a device may lack.

On armv6 and armv7 atomics of another size than 32 bits may become calls into libatomic, depending on the compiler. The
channel has 32-bit atomics only, on purpose; an undefined `__atomic_*` symbol says that another has slipped in.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cross.targets import Target

_NEEDED = {"libc.so.6", "libpthread.so.0", "librt.so.1", "ld-linux-armhf.so.3", "ld-linux-aarch64.so.1"}


def complaints(target: Target) -> list[str]:
    """What is wrong with the built files, one line each; empty when nothing is."""
    found = [f"{target.extension.name} needs {name}" for name in sorted(needed(target.extension) - _NEEDED)]
    for path in (target.extension, target.built / "libheadrace.a", target.stress):
        found += [f"{path.name} calls {name}" for name in atomic_calls(path)]
        found += [f"{path.name} is for {cpu}, not {target.elf_cpu}" for cpu in cpus(path) - {target.elf_cpu}]
    return found


def needed(path: Path) -> set[str]:
    """Shared libraries the file asks the loader for."""
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "--dynamic", str(path))))


def atomic_calls(path: Path) -> list[str]:
    """Undefined symbols that would have to come from libatomic (`__atomic_*`, and the older `__sync_*`)."""
    return sorted(set(_calls(path)))


def _calls(path: Path) -> Iterator[str]:
    dynamic = ["-D"] if path.suffix == ".so" else []
    for line in _output("nm", "--undefined-only", *dynamic, str(path)).splitlines():
        name = line.split()[-1] if line.split() else ""
        if name.startswith(("__atomic_", "__sync_")):
            yield name


def cpus(path: Path) -> set[str]:
    """`Tag_CPU_arch` of the file, of each member of an archive; {""} for arm64, which has no such attribute."""
    return set(re.findall(r"Tag_CPU_arch: (\S+)", _output("readelf", "--arch-specific", str(path)))) or {""}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
