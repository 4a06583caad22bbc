"""Builds for every target what runs on a device: the wheel with the extension, the C library, the stress program.

`make cross`, or `python -m cross.build [arm64] [armv7] [armv6]`. What is built lies in `.cross/built/<target>/` and is
looked at before it counts: see `cross.elf`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

from cross.debian import python_headers
from cross.elf import complaints
from cross.targets import ROOT, Target, chosen
from cross.zig import cache, compiler, zig

_PACKED = ("agent", "shmem", "runtimes", "bindings", "pyproject.toml", "README.md", "LICENSE")
_C_FLAGS = ["-std=gnu11", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'shmem'}"]


def build(target: Target) -> None:
    """Everything of one target, in place of what was there. Raises CalledProcessError; SystemExit for a bad result."""
    shutil.rmtree(target.built, ignore_errors=True)
    target.built.mkdir(parents=True)
    wheel = _wheel(target)
    with zipfile.ZipFile(wheel) as archive:
        target.extension.write_bytes(archive.read("shmem/_channel.abi3.so"))
    _library(target)
    _stress(target)
    found = complaints(target)
    if found:
        raise SystemExit("\n".join([f"{target.name}: the build is not what it must be", *found]))


def _wheel(target: Target) -> Path:
    """The project's own build, on a copy, with another compiler and another Python's headers."""
    source = target.built / "source"
    source.mkdir()
    for name in _PACKED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for stale in source.rglob("*.so"):
        stale.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "."]
    command += ["-w", str(target.built), f"-C--build-option=--plat-name={target.wheel_platform}"]
    subprocess.run(command, check=True, cwd=source, env={**os.environ, **compile_environment(target)})
    shutil.rmtree(source)
    (wheel,) = target.built.glob("*.whl")
    return wheel


def compile_environment(target: Target) -> dict[str, str]:
    """What setuptools reads. Its search path begins with CFLAGS, so the foreign pyconfig.h is found before ours."""
    cc = " ".join(compiler(target))
    include = python_headers(target.debian)
    flags = " ".join(f"-I{folder}" for folder in (next(include.glob("python3*")), include))
    return {"CC": cc, "LDSHARED": f"{cc} -shared -s -Wl,--gc-sections", "CFLAGS": flags, "LDFLAGS": "", **cache()}


def core_sources() -> list[str]:
    """The C files without Python, from the list that pyproject.toml keeps."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (extension,) = project["tool"]["setuptools"]["ext-modules"]
    return [str(ROOT / name) for name in extension["sources"] if not Path(name).name.startswith("py")]


def _library(target: Target) -> None:
    """`libheadrace.a`: the channel for programs in C and whatever links C."""
    _run([*compiler(target), *_C_FLAGS, "-c", *core_sources()], target)
    objects = sorted(str(path) for path in target.built.glob("*.o"))
    _run([str(zig()), "ar", "rcs", "libheadrace.a", *objects], target)
    for name in objects:
        Path(name).unlink()


def _stress(target: Target) -> None:
    """Static, so that it runs on an emulated processor of the very kind, with no userland around it."""
    command = [*compiler(target, static=True), *_C_FLAGS, "-pthread", "-s", "-o", str(target.stress)]
    _run([*command, str(ROOT / "tests" / "c" / "ring_stress.c"), *core_sources()], target)


def _run(command: list[str], target: Target) -> None:
    subprocess.run(command, check=True, cwd=target.built, env={**os.environ, **cache()})


def main(names: list[str]) -> int:
    """0 when all chosen targets are built and right."""
    for target in chosen(names):
        started = time.monotonic()
        build(target)
        what = ", ".join(f"{path.name} {path.stat().st_size // 1024} KiB" for path in sorted(target.built.iterdir()))
        print(f"{target.name}: {what} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
