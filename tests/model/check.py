"""Runs the model of the waking protocol through spin: `python -m tests.model.check [--short]`.

Why: the number of states and of errors is the proof; the controls show that the model could have found an error.
Flow: wake.pml -> spin -a -> gcc -> pan, all in a temporary folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("wake.pml")
SHORT = ("N=2", "DEPTH=2")
LONG = ("N=3", "DEPTH=3")  # the third event takes the first slot again
LOSSY = (*LONG, "LOSE_AT_CRASH")
CONTROLS = (
    "NO_PRODUCER_FENCE",
    "NO_CONSUMER_FENCE",
    "NO_RECHECK",
    "NO_RING",
    "TAKEN_AFTER",
    "NO_RELEASE",
    "NO_ACQUIRE",
    "NO_HEAD_RELEASE",
    "RELEASE_EARLY",
    "HELD_OPEN",
)


@dataclass(frozen=True)
class Verdict:
    """What spin found: stored states, errors (spin stops at the first), what the first was, seconds it took."""

    states: int
    errors: int
    first: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.states:>10} states  {self.errors} errors  {self.seconds:6.1f} s  {self.first}"


def check(*defines: str, optimise: str = "-O2") -> Verdict:
    """Every state of the model with these macros. RuntimeError when the search could not be finished."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wake-") as folder:
        _run(["spin", "-a", *(f"-D{name}" for name in defines), str(MODEL)], folder)
        _run(["gcc", "-w", optimise, "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], folder)
        text = _run(["./pan", "-m100000", "-n"], folder)
    return _verdict(text, time.monotonic() - begun)


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}")
    return done.stdout


def _verdict(text: str, seconds: float) -> Verdict:
    errors = re.search(r"errors: (\d+)", text)
    states = re.search(r"(\d+) states, stored", text)
    if errors is None or states is None or "max search depth too small" in text or "out of memory" in text:
        raise RuntimeError(f"the search did not finish: {text[-2000:]}")
    first = re.search(r"^pan:1: (.*) \(at depth", text, re.MULTILINE)
    return Verdict(int(states[1]), int(errors[1]), first[1] if first else "", seconds)


def main() -> int:
    """0 when the model has no error and every control has one."""
    right = True
    for defines in (SHORT,) if "--short" in sys.argv else (SHORT, LONG, LOSSY):
        verdict = check(*defines)
        right = right and verdict.errors == 0
        print(f"{' '.join(defines):<30} {verdict}", flush=True)
    for control in CONTROLS:
        verdict = check(control, *LONG, optimise="-O1")
        right = right and verdict.errors > 0
        print(f"{control:<20} must fail {verdict}", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
