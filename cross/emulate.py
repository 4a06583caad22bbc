"""Runs a target's programs on this machine: the kernel hands them to qemu-user.

A static program needs nothing else. A dynamic one needs its userland around it, and starts children of its own (a
processor starts workers), so it runs in a chroot there and the kernel has to know the interpreter (binfmt_misc). Mounts
are made in a mount namespace of the command: they end with it, and /dev/shm is one of its own.

qemu translates ARM code for the processor it runs on. On x86, whose memory order is stronger, a missing barrier does
NOT show. What is shown here is that the code loads, computes, and calls the kernel rightly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cross.targets import Target

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTER = """
mount --rbind /dev "$0/dev"
mount -t tmpfs -o size=256m shm "$0/dev/shm"
mount --rbind /proc "$0/proc"
exec chroot "$0" "$@"
"""


def missing(target: Target) -> str:
    """What this machine lacks for running that target, with how to mend it; empty when nothing."""
    if shutil.which(f"qemu-{target.qemu}-static") is None:
        return "qemu-user-static is not installed (make cross-test installs it where it may)"
    if os.geteuid() != 0:
        return "needs root for chroot and mounts"
    if not _registered(target):
        return "the kernel does not start ARM programs: no binfmt_misc, or it refuses registrations"
    return ""


def _registered(target: Target) -> bool:
    """Tell the kernel of qemu where nobody has (systemd does it at boot, from the same file)."""
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=False, capture_output=True)
    name = f"qemu-{target.qemu}"
    rule = Path(f"/usr/lib/binfmt.d/{name}.conf")
    if not (_BINFMT / name).exists() and rule.exists():
        try:
            (_BINFMT / "register").write_text(rule.read_text().strip())
        except OSError:
            return False
    return (_BINFMT / name).exists()


def static(target: Target, program: Path, *arguments: str) -> list[str]:
    """Command for a static program, on the very processor the target names."""
    return [f"qemu-{target.qemu}-static", "-cpu", target.qemu_cpu, str(program), *arguments]


def inside(target: Target, *command: str, env: dict[str, str] | None = None) -> list[str]:
    """Command that runs `command` in the target's userland."""
    for name in ("dev", "proc", "tmp", "root"):
        (target.userland / name).mkdir(exist_ok=True)
    values = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(env or {}),
    }
    assignments = [f"{key}={value}" for key, value in values.items()]
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _ENTER, str(target.userland)]
    return [*enter, "/usr/bin/env", "-i", *assignments, *command]
