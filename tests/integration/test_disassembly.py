"""The compiled arm64 code has the instruction for each memory order that the C source claims.

No test that runs here could show a missing one: x86 orders memory more strongly than ARM, and so does emulated ARM on
it. So the code is read. `stlr` is a release store, `ldar` an acquire load, `dmb ish` a full fence.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.tools import need

SHMEM = Path(__file__).parents[2] / "shmem"
FLAGS = ["-std=gnu11", "-O2", "-DPy_LIMITED_API=0x030B0000", f"-I{SHMEM}", f"-I{sysconfig.get_paths()['include']}"]

CLAIMS = {
    "memory_order_acquire": re.compile(r"ldar|ldapr|ldaxr"),
    "memory_order_release": re.compile(r"stlr|stlxr"),
    "atomic_thread_fence(memory_order_seq_cst)": re.compile(r"dmb\s+ish$"),
}
LOAD = re.compile(r"ld[a-z]*r[bh]?\s|ldp\s")
BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z|bl|ret)(\s|$)")

Code = dict[str, list[str]]


def source_of(name: str) -> str:
    """A C file without its comments: they name orders too."""
    return re.sub(r"/\*.*?\*/", "", (SHMEM / name).read_text(), flags=re.DOTALL)


def claims_of(source: str) -> dict[tuple[str, str], int]:
    """How often each function claims each order. A function begins in column 0 and ends with a brace there."""
    found = {}
    for function in re.finditer(r"^\w[^\n;{}=]*?(\w+)\([^;{}]*\)\n\{(.*?)^\}", source, flags=re.DOTALL | re.MULTILINE):
        for claim in CLAIMS:
            times = re.sub(r"\s+", " ", function[2]).count(claim)
            if times:
                found[function[1], claim] = times
    return found


def compiled(source: str, folder: Path, *flags: str) -> Code:
    """Instructions of each function, as text. Parts that gcc splits off count with the function they came from."""
    gcc = need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    objdump = need("aarch64-linux-gnu-objdump", "binutils-aarch64-linux-gnu")
    (folder / "code.c").write_text(source)
    built = subprocess.run(
        [gcc, *FLAGS, *flags, "-c", "-o", str(folder / "code.o"), str(folder / "code.c")],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", "-M", "no-aliases", str(folder / "code.o")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    code: Code = {}
    name = ""
    for line in text.splitlines():
        if start := re.match(r"[0-9a-f]+ <([\w$]+)[.\w]*>:", line):
            name = start[1]
        elif instruction := re.match(r"\s+[0-9a-f]+:\s+(.*)", line):
            code.setdefault(name, []).append(re.sub(r"\s*//.*", "", instruction[1]).replace("\t", " "))
    return code


def unfulfilled(claims: dict[tuple[str, str], int], code: Code) -> list[str]:
    """Claims for which the function has too few instructions. Needs code with nothing inlined: each has its own."""
    missing = []
    for (function, claim), times in claims.items():
        found = sum(bool(CLAIMS[claim].match(line)) for line in code.get(function, []))
        if found < times:
            missing.append(f"{function}: {claim} {times} times in the source, {found} in the code")
    return missing


def index(lines: list[str], pattern: str, start: int = 0) -> int:
    """Where the first instruction from `start` on matches; fails with the code when none does."""
    for number, line in enumerate(lines[start:], start):
        if re.match(pattern, line):
            return number
    pytest.fail(f"no {pattern} after instruction {start} in\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    """channel.c as it is shipped."""
    return compiled((SHMEM / "channel.c").read_text(), tmp_path_factory.mktemp("arm64"))


@pytest.mark.parametrize("name", sorted(path.name for path in SHMEM.glob("*.c")))
def test_every_order_in_the_source_is_in_the_code(name: str, tmp_path: Path) -> None:
    claims = claims_of(source_of(name))
    assert claims or name != "channel.c", "the claims are found where they must be"
    code = compiled((SHMEM / name).read_text(), tmp_path, "-fno-inline", "-mno-outline-atomics")
    assert unfulfilled(claims, code) == []


def test_every_order_in_the_source_is_looked_for() -> None:
    """Nothing is outside of what the functions found hold, and no order is used that the table does not know."""
    for path in SHMEM.glob("*.c"):
        source = source_of(path.name)
        orders = re.findall(r"memory_order_\w+", source)
        assert len(orders) - orders.count("memory_order_relaxed") == sum(claims_of(source).values()), path.name


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_order_that_is_lost_is_seen(claim: str, tmp_path: Path) -> None:
    weakened = (
        (SHMEM / "channel.c").read_text().replace(claim, "(void)0" if "fence" in claim else "memory_order_relaxed")
    )
    code = compiled(weakened, tmp_path, "-fno-inline", "-mno-outline-atomics")
    assert {line.split(": ")[1].split(" ")[0] for line in unfulfilled(claims_of(source_of("channel.c")), code)} == {
        claim
    }


def test_publish_stores_tail_with_release_then_fences_then_looks_who_sleeps(code: Code) -> None:
    lines = code["ring_publish"]
    release = index(lines, "stlr ")
    fence = index(lines, r"dmb\s+ish$", release)
    asleep = index(lines, "ldr w", fence)
    assert not any(BRANCH.match(line) for line in lines[:asleep]), "one way through"
    assert not any(line.startswith("ldr w") for line in lines[release:fence]), "asleep is not loaded before the fence"


def test_sleep_stores_its_flag_then_fences_then_looks_at_tail(code: Code) -> None:
    lines = code["ring_sleep"]
    flag = index(lines, "str w")
    fence = index(lines, r"dmb\s+ish$", flag)
    index(lines, "ldar ", fence)
    assert not any(line.startswith("ldar ") for line in lines[:fence]), "tail is not loaded before the fence"


@pytest.mark.parametrize("function", ["ring_peek", "ring_reserve"])
def test_the_position_of_the_other_side_is_loaded_with_acquire(function: str, code: Code) -> None:
    """tail by the consumer, head by the producer."""
    index(code[function], "ldar ")


def test_release_stores_head_with_release_and_reads_nothing_afterwards(code: Code) -> None:
    lines = code["ring_release"]
    assert not any(LOAD.match(line) for line in lines[index(lines, "stlr ") :])
