"""A folder of wheels with which a device installs the project and needs neither a compiler nor a package index.

`python -m cross.wheelhouse [TARGET...]` fills `.cross/wheelhouse/<target>/`; on the device:

    python3 -m venv headrace && headrace/bin/pip install --no-index --find-links WHEELHOUSE headrace

Where PyPI has a wheel for the device, that one is taken. Where it has none (most compiled packages on 32 bits), the
source is compiled here, the same way as our own extension. What can not be built so is named: see docs/ARM.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from cross.build import compile_environment
from cross.debian import python_headers
from cross.targets import ROOT, WORK, Target, chosen

_LIBC = ("manylinux_2_17", "manylinux2014", "manylinux_2_26", "manylinux_2_28", "manylinux_2_31", "linux")
"""Of Debian 11 and later, glibc 2.31."""
_NOT_BUILT = ("pyzmq",)
"""Brings a C++ library of its own, whose sources its build downloads from elsewhere."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def fill(target: Target) -> list[str]:
    """Gather the wheels of one target. Returns the requirements for which there is none."""
    if not (python_headers(target.debian) / f"python{_PYTHON}").exists():
        raise SystemExit(f"wheels are built for the Python that builds them, and this Debian's is not {_PYTHON}")
    folder = wheelhouse(target)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("headrace-*.whl"):
        old.unlink()
    shutil.copy(next(target.built.glob("*.whl")), folder)
    return [str(requirement) for requirement in _requirements(target) if not _have(requirement, target, folder)]


def wheelhouse(target: Target) -> Path:
    """Where the target's wheels are."""
    return WORK / "wheelhouse" / target.name


def _requirements(target: Target) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for line in project["project"]["dependencies"]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"platform_machine": target.machine}):
            requirement.marker = None
            yield requirement


def _have(requirement: Requirement, target: Target, folder: Path) -> bool:
    if any(folder.glob(f"{requirement.name.replace('-', '_').replace('.', '_')}-*.whl")):
        return True
    platforms = [part for libc in _LIBC for part in ("--platform", f"{libc}_{target.machine}")]
    download = ["download", "--only-binary", ":all:", "--python-version", _PYTHON]
    if _pip(*download, *platforms, "-d", str(folder), str(requirement)):
        return True
    if requirement.name in _NOT_BUILT:
        return False
    build = ["wheel", "--no-binary", requirement.name, "-w", str(folder), str(requirement)]
    return _pip(*build, env=_as_if_on(target), shown=True)


def _as_if_on(target: Target) -> dict[str, str]:
    """What makes setuptools name the result after the device, and not after this machine."""
    suffix = f".cpython-{_PYTHON.replace('.', '')}-{target.multiarch}.so"
    named = {"_PYTHON_HOST_PLATFORM": f"linux-{target.machine}", "SETUPTOOLS_EXT_SUFFIX": suffix}
    return compile_environment(target) | named


def _pip(*arguments: str, env: dict[str, str] | None = None, shown: bool = False) -> bool:
    command = [sys.executable, "-m", "pip", arguments[0], "-q", "--no-deps", *arguments[1:]]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=not shown)
    return done.returncode == 0


def main(names: list[str]) -> int:
    """0 also where a requirement has no wheel; which one is said."""
    for target in chosen(names):
        lacking = fill(target)
        wheels = sorted(wheelhouse(target).glob("*.whl"))
        size = sum(path.stat().st_size for path in wheels) // 1024
        print(f"{target.name}: {len(wheels)} wheels, {size} KiB; not there: {', '.join(lacking) or 'none'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
