"""The C core without Python: both ends as two threads, under the sanitizers; and proof that faults would be seen."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.c_mutant import mutant
from tests.support.c_program import C_TESTS, SANITIZERS, build, run

CORPUS = C_TESTS / "corpus"


@pytest.mark.parametrize(("sanitizer", "records"), [("plain", 100_000), ("address", 20_000), ("thread", 10_000)])
def test_records_go_there_and_back(sanitizer: str, records: int, tmp_path: Path) -> None:
    done = run(build(tmp_path / "stress", "ring_stress.c", flags=SANITIZERS[sanitizer]), str(records))
    assert (done.returncode, done.stdout) == (0, f"{records} records there and back\n"), done.stderr


@pytest.mark.parametrize(("sanitizer", "rounds"), [("plain", 20_000), ("thread", 2_000)])
def test_no_wake_up_is_lost_where_publishing_and_going_to_sleep_cross(
    sanitizer: str, rounds: int, tmp_path: Path
) -> None:
    done = run(build(tmp_path / "litmus", "ring_litmus.c", flags=SANITIZERS[sanitizer]), str(rounds))
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_second_look_a_wake_up_is_lost(tmp_path: Path) -> None:
    done = run(build(tmp_path / "litmus", "ring_litmus.c", core=mutant("no-second-look", tmp_path)), "20000")
    assert done.returncode == 1, done.stdout
    assert "lost in round" in done.stdout


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_a_full_ring_loses_and_tears_nothing(sanitizer: str, tmp_path: Path) -> None:
    done = run(build(tmp_path / "flood", "ring_flood.c", flags=SANITIZERS[sanitizer]), "5000")
    assert (done.returncode, done.stdout) == (0, "5000 records one way\n"), done.stderr


@pytest.mark.parametrize("name", ["tail-relaxed", "head-relaxed", "tail-not-acquired", "head-not-acquired"])
def test_a_weaker_order_is_a_race_that_the_thread_sanitizer_sees(name: str, tmp_path: Path) -> None:
    core = mutant(name, tmp_path)
    done = run(build(tmp_path / "flood", "ring_flood.c", flags=SANITIZERS["thread"], core=core), "2000")
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.parametrize("side", ["reply", "event"])
def test_what_the_fuzzers_kept_does_no_harm(side: str, tmp_path: Path) -> None:
    flags = SANITIZERS["address"]
    program = build(tmp_path / side, f"fuzz_{side}.c", "fuzz_once.c", flags=flags, link=False)
    inputs = sorted((CORPUS / side).iterdir())
    assert len(inputs) > 20
    done = run(program, *map(str, inputs))
    assert (done.returncode, done.stdout) == (0, f"{len(inputs)} inputs\n"), done.stderr


def test_the_core_is_clean_for_compilers_that_look_closely(tmp_path: Path) -> None:
    """C11, warnings are errors: workers in other languages compile these files too."""
    for name in ("channel.c", "record.c", "apart.c"):
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
        command = ["gcc", *flags, "-c", f"shmem/{name}", "-o", str(tmp_path / "unit.o")]
        done = subprocess.run(command, cwd=C_TESTS.parents[1], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
