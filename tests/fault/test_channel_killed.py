"""Ten thousand random SIGKILLs of workers and processors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.c_program import ROOT


def test_ten_thousand_kills(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tests.fault.kill_rounds", "5000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stderr
