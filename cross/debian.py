"""Debian packages of another architecture, without touching the apt of this machine.

apt gets a state folder of its own in which nothing is installed, so it resolves and downloads a package with all it
needs; `dpkg -x` unpacks them. Nothing is configured: no maintainer script runs, which under emulation would take
minutes instead of seconds. For headers and for a Python that runs tests the files are enough. The release is this
machine's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cross.targets import WORK

_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
_MERGED = ("bin", "lib", "sbin")
"""Folders of / that are links into /usr; without the links the unpacked files would lie in two places."""


def python_headers(architecture: str) -> Path:
    """`usr/include` with the pyconfig.h of that architecture: a 64-bit one does not compile for 32 bits.

    Of the release's Python; any from 3.11 will do, since the extension keeps to the limited API of 3.11.
    Raises subprocess.CalledProcessError when apt or dpkg fails; their words are on stderr.
    """

    def download(into: Path) -> None:
        package = re.search(
            r"Depends: .*(libpython3\.\d+-dev)", _apt(architecture, "apt-cache", "show", "libpython3-dev")
        )
        assert package is not None, "libpython3-dev is there to name the release's Python"
        _apt(architecture, "apt-get", "-q", "download", package[1], cwd=into)

    return _unpacked(WORK / "headers" / architecture, architecture, download) / "usr" / "include"


def userland(architecture: str, packages: list[str]) -> Path:
    """A root folder with these packages and all they depend on. Raises as `python_headers`."""

    def download(into: Path) -> None:
        (into / "partial").mkdir()
        archives = f"Dir::Cache::archives={into}"
        _apt(architecture, "apt-get", "-q", "-y", "-o", archives, "--download-only", "install", *packages)

    return _unpacked(WORK / "userland" / architecture, architecture, download)


def _unpacked(folder: Path, architecture: str, download: Callable[[Path], None]) -> Path:
    """Made once: complete, or not there at all."""
    if folder.exists():
        return folder
    part, archives = folder.with_suffix(".part"), folder.with_suffix(".archives")
    for fresh in (part, archives):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    for name in _MERGED:
        (part / "usr" / name).mkdir(parents=True)
        (part / name).symlink_to(f"usr/{name}")
    _update(architecture)
    download(archives)
    for package in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(part)], check=True)
    shutil.rmtree(archives)
    return part.rename(folder)


def _update(architecture: str) -> None:
    """A mirror in the middle of its own update lacks an index for an hour; the others are mostly enough, and what then
    is missing fails at its download.
    """
    try:
        _apt(architecture, "apt-get", "-q", "update")
    except subprocess.CalledProcessError:
        print(f"{architecture}: apt-get update was incomplete, going on with what there is", file=sys.stderr)


def _apt(architecture: str, program: str, *arguments: str, cwd: Path | None = None) -> str:
    source = next((name for name in _SOURCES if Path(name).exists()), "")
    if not source or shutil.which("apt-get") is None:
        raise SystemExit(
            "the ARM builds take Python's headers and userlands from Debian packages: run this on a Debian"
        )
    apt = WORK / "apt" / architecture
    (apt / "state" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    values = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Dir::State": apt / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
    }
    options = [part for key, value in values.items() for part in ("-o", f"{key}={value}")]
    return subprocess.run(
        [program, *options, *arguments], check=True, cwd=cwd, stdout=subprocess.PIPE, text=True
    ).stdout
