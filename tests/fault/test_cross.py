"""The builds for ARM, on emulated ARM: minutes at the first run (downloads), seconds afterwards.

Emulation shows that the code loads, computes and calls the kernel; it does not show memory-order faults. Against those
stand the arguments in channel.c, the model in tests/model, and a look at the code: test_disassembly.py for arm64, and
here for 32 bits.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cross import build, elf, emulate, run_tests, served, wheelhouse
from cross.targets import TARGETS, Target
from cross.zig import cache, compiler
from tests.support.tools import need

SIGILL = 4


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    """Built, and its userland there with the project in it."""
    return ready(TARGETS[request.param])


def ready(target: Target) -> Target:
    need(f"qemu-{target.qemu}-static", "qemu-user-static")
    if lack := emulate.missing(target):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lack)
    build.build(target)
    run_tests.prepare(target)
    return target


@pytest.mark.parametrize("step", run_tests.STEPS, ids=lambda step: step.__name__)
def test_the_channel_works_there(step: Callable[[Target], str], target: Target) -> None:
    assert step(target)


def test_nothing_is_amiss_in_what_was_built(target: Target) -> None:
    """For that processor and no later one, without libatomic, without what this machine alone has."""
    assert elf.complaints(target) == []


def test_the_fences_are_the_processors_own(target: Target) -> None:
    """`dmb` came with armv7: armv6 has a write to the system coprocessor for it, and would refuse the other."""
    barriers = {
        "arm64": r"\tdmb\s+ish$",
        "armv7": r"\tdmb\s+ish$",
        "armv6": r"\tmcr\s+15, 0, r\d+, cr7, cr10, \{5\}$",
    }
    prefix = target.multiarch
    objdump = need(f"{prefix}-objdump", f"binutils-{prefix}")
    library = str(target.built / "libheadrace.a")
    text = subprocess.run([objdump, "-d", library], check=True, capture_output=True, text=True).stdout
    functions = dict(re.findall(r"<(\w+)>:\n((?:.+\n)+)", text))
    for name in ("ring_publish", "ring_sleep"):
        assert re.search(barriers[target.name], functions[name], flags=re.MULTILINE), functions[name]
    assert target.name != "armv6" or not re.search(r"\tdmb\b", text)


def test_an_atomic_that_needs_a_library_would_be_noticed(target: Target, tmp_path: Path) -> None:
    """The control of "nothing is amiss"."""
    source = "struct wide { long words[5]; };\nstruct wide load(_Atomic struct wide *from) { return *from; }\n"
    (tmp_path / "wide.c").write_text(source)
    command = [*compiler(target), "-O2", "-c", "wide.c", "-o", "wide.o"]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **cache()})
    assert elf.atomic_calls(tmp_path / "wide.o") == ["__atomic_load"]


def test_the_armv6_processor_refuses_the_armv7_build() -> None:
    """So that it means something when the armv6 build runs on it."""
    older, newer = TARGETS["armv6"], TARGETS["armv7"]
    need(f"qemu-{older.qemu}-static", "qemu-user-static")
    build.build(newer)
    done = subprocess.run(emulate.static(older, newer.stress, "100"), capture_output=True)
    assert done.returncode == -SIGILL


def test_the_whole_project_installs_and_serves_on_arm64() -> None:
    target = ready(TARGETS["arm64"])
    assert wheelhouse.fill(target) == []
    served.installed(target)
    assert served.served(target) == "aarch64 got one event"
