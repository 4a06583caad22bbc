"""The waking protocol with three events (slots are used again), stores lost in a crash, and every control."""

from __future__ import annotations

import pytest

from tests.model import check
from tests.support.tools import need

pytestmark = pytest.mark.usefixtures("spin")


@pytest.fixture(scope="module")
def spin() -> None:
    need("spin")
    need("gcc")


@pytest.mark.parametrize("defines", [check.LONG, check.LOSSY], ids=" ".join)
def test_no_interleaving_is_bad(defines: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    verdict = check.check(*defines)
    with capsys.disabled():
        print(f"\n{' '.join(defines)}: {verdict}")
    assert verdict.errors == 0, verdict.first
    assert verdict.states > 10_000_000


@pytest.mark.parametrize("control", check.CONTROLS)
def test_each_control_fails(control: str) -> None:
    verdict = check.check(control, *check.LONG, optimise="-O1")
    assert verdict.errors > 0
