"""The devices we build for: what names each of them in the compiler, in Debian, in qemu and in a wheel.

armv6 is the Raspberry Pi 1 and Zero. Debian's armhf needs armv7, so there is no Debian userland for it: the armv6 build
is loaded into the armhf one (an armv7 processor runs armv6 code), and its C programs run alone on an emulated ARM1176.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cross"
"""Downloads, builds and userlands. Ignored by git, reused between runs, safe to delete at any time."""

GLIBC = "2.17"
"""The oldest C library our builds run on: what manylinux_2_17 wheels promise."""


@dataclass(frozen=True)
class Target:
    """One kind of device."""

    name: str
    zig: str
    """Start of zig's target triple; the C library is added by who compiles."""
    abi: str
    """`gnu` and `musl` get this ending in zig's triple."""
    cpu: str
    """zig's name of the oldest processor the code must run on; empty for the architecture's base line."""
    debian: str
    wheel_platform: str
    qemu: str
    qemu_cpu: str
    """What our static programs are run on. Debian's Python runs on qemu's default, since armhf is armv7 throughout."""
    elf_cpu: str
    """`Tag_CPU_arch` of the ELF attributes; empty where there are none."""

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


TARGETS = {
    target.name: target
    for target in (
        Target("arm64", "aarch64-linux", "", "", "arm64", "manylinux_2_17_aarch64", "aarch64", "cortex-a53", ""),
        Target("armv7", "arm-linux", "eabihf", "", "armhf", "manylinux_2_17_armv7l", "arm", "cortex-a7", "v7"),
        # PyPI knows no armv6 wheels, so the tag is the plain one that pip on such a device asks for.
        Target("armv6", "arm-linux", "eabihf", "arm1176jzf_s", "armhf", "linux_armv6l", "arm", "arm1176", "v6"),
    )
}


def chosen(names: list[str]) -> Iterator[Target]:
    """The named targets, all of them when none is named. SystemExit names the known ones."""
    for name in names or TARGETS:
        if name not in TARGETS:
            raise SystemExit(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
        yield TARGETS[name]
