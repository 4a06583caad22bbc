"""The devices we build for: what names each of them in the compiler, in Debian, in qemu and in a wheel.

armv6 is the Raspberry Pi 1 and Zero. Debian's armhf needs armv7, so there is no Debian userland for it: the armv6 build
is loaded into the armhf one (an armv7 processor runs armv6 code), and its C programs run alone on an emulated ARM1176.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cross"
"""Downloads, builds and userlands. Ignored by git, reused between runs, safe to delete at any time."""

GLIBC = "2.17"
"""The oldest C library our builds run on: what manylinux_2_17 wheels promise."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of device."""

    name: str
    machine: str
    """`uname -m` on the device."""
    wheel_platform: str
    elf_cpu: str = ""
    """`Tag_CPU_arch` of the ELF attributes; arm64 has none."""

    zig: str
    """Start of zig's target triple; the C library is added by who compiles."""
    abi: str = ""
    """`gnu` and `musl` get this ending in zig's triple."""
    cpu: str = ""
    """zig's name of the oldest processor the code must run on; empty: the architecture's base line."""

    debian: str
    multiarch: str
    qemu: str
    qemu_cpu: str
    """What our static programs run on. Debian's Python runs on qemu's default, since armhf is armv7 throughout."""

    @property
    def built(self) -> Path:
        """Where `cross.build` leaves this target's wheel, library and programs."""
        return WORK / "built" / self.name

    @property
    def extension(self) -> Path:
        return self.built / "_channel.abi3.so"

    @property
    def stress(self) -> Path:
        """tests/c/ring_stress.c, static."""
        return self.built / "ring_stress"

    @property
    def userland(self) -> Path:
        """Root of the Debian this target is tested in."""
        return WORK / "userland" / self.debian


_ARM64 = Target(
    name="arm64",
    machine="aarch64",
    wheel_platform="manylinux_2_17_aarch64",
    zig="aarch64-linux",
    debian="arm64",
    multiarch="aarch64-linux-gnu",
    qemu="aarch64",
    qemu_cpu="cortex-a53",
)
_ARMV7 = Target(
    name="armv7",
    machine="armv7l",
    wheel_platform="manylinux_2_17_armv7l",
    elf_cpu="v7",
    zig="arm-linux",
    abi="eabihf",
    debian="armhf",
    multiarch="arm-linux-gnueabihf",
    qemu="arm",
    qemu_cpu="cortex-a7",
)
_ARMV6 = replace(
    _ARMV7,
    name="armv6",
    machine="armv6l",
    wheel_platform="linux_armv6l",  # no index knows armv6, so this is the plain tag that pip on such a device asks for
    elf_cpu="v6",
    cpu="arm1176jzf_s",
    qemu_cpu="arm1176",
)
TARGETS = {target.name: target for target in (_ARM64, _ARMV7, _ARMV6)}


def chosen(names: list[str]) -> Iterator[Target]:
    """The named targets, all of them when none is named. SystemExit names the known ones."""
    for name in names or TARGETS:
        if name not in TARGETS:
            raise SystemExit(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
        yield TARGETS[name]
