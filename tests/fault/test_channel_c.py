"""The C core for long: stress under the sanitizers, the critical moment millions of times, and the fuzzers.

HEADRACE_FUZZ_S is how many seconds each fuzzer runs, 20 if not said; `make fault` says 600.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.c_mutant import mutant
from tests.support.c_program import C_TESTS, CORE, SANITIZERS, build, run
from tests.support.tools import lacking

FUZZ_S = int(os.environ.get("HEADRACE_FUZZ_S", "20"))
FUZZER = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
LONGEST_INPUT = 4400
MINUTES = 900


@pytest.mark.parametrize(("sanitizer", "records"), [("plain", 5_000_000), ("address", 1_000_000), ("thread", 500_000)])
@pytest.mark.parametrize("program", ["ring_stress", "ring_flood"])
def test_millions_of_records(program: str, sanitizer: str, records: int, tmp_path: Path) -> None:
    if program == "ring_flood":
        records //= 10  # a full ring waits by the clock
    built = build(tmp_path / program, f"{program}.c", flags=SANITIZERS[sanitizer])
    done = run(built, str(records), timeout_s=MINUTES)
    assert done.returncode == 0, done.stderr


def test_no_wake_up_is_lost_in_millions_of_crossings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(build(tmp_path / "litmus", "ring_litmus.c"), "5000000", timeout_s=MINUTES)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["no-producer-fence", "no-consumer-fence", "no-second-look"])
def test_without_a_fence_this_machine_loses_a_wake_up(name: str, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) == 1:
        lacking("needs two cores: one sees its own stores in order")
    program = build(tmp_path / "litmus", "ring_litmus.c", core=mutant(name, tmp_path))
    done = run(program, "50000000", timeout_s=MINUTES)
    assert done.returncode == 1, done.stdout


def fuzzer(side: str, tmp_path: Path, core: Path = CORE) -> Path:
    flags = [*FUZZER, f'-DCORE_CHANNEL="{core}/channel.c"', f'-DCORE_RECORD="{core}/record.c"']
    return build(tmp_path / f"fuzz_{side}", f"fuzz_{side}.c", flags=flags, core=core, compiler="clang", link=False)


def fuzz(program: Path, side: str, tmp_path: Path, seconds: int) -> tuple[int, str]:
    new = tmp_path / "new"
    new.mkdir()
    arguments = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1"]
    done = run(
        program, *arguments, f"-artifact_prefix={tmp_path}/found-", str(new), str(C_TESTS / "corpus" / side),
        timeout_s=seconds + 120,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("side", ["reply", "event"])
def test_a_hostile_other_side_does_no_harm(side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fuzz(fuzzer(side, tmp_path), side, tmp_path, FUZZ_S)
    rate = re.search(r"average_exec_per_sec: *(\d+)", text)
    total = re.search(r"number_of_executed_units: *(\d+)", text)
    with capsys.disabled():
        print(f"\nfuzz_{side}: {total[1] if total else '?'} runs, {rate[1] if rate else '?'} a second, {FUZZ_S} s")
    assert code == 0, text[-4000:]


@pytest.mark.parametrize(
    ("side", "name"), [("reply", "size-unchecked"), ("reply", "body-unchecked"), ("event", "texts-unchecked")]
)
def test_the_fuzzers_find_a_check_that_is_missing(side: str, name: str, tmp_path: Path) -> None:
    core = tmp_path / "core"
    core.mkdir()
    code, text = fuzz(fuzzer(side, tmp_path, mutant(name, core)), side, tmp_path, 60)
    assert code != 0, text[-2000:]
    assert "AddressSanitizer" in text or "broken promise" in text
