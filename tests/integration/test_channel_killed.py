"""A thousand random SIGKILLs of workers and processors: nothing lost, nothing begun twice, no hang, no leak."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.c_program import ROOT


@pytest.mark.timeout(240)
def test_a_thousand_kills() -> None:
    command = [sys.executable, "-m", "tests.fault.kill_rounds", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    counts = json.loads(done.stdout)
    # the kills met what they were to meet: events in hand, events behind them, processors with segments
    assert counts["kills"] == 1000
    assert counts["worker"]["died"] > 10
    assert counts["worker"]["dealt again"] > 100
    assert counts["processor"]["segments swept"] > 100
