"""The waking protocol, every interleaving of two events; the controls that a check without them would miss."""

from __future__ import annotations

import pytest

from tests.model import check
from tests.support.tools import need

pytestmark = pytest.mark.usefixtures("spin")


@pytest.fixture(scope="module")
def spin() -> None:
    need("spin")
    need("gcc")


@pytest.mark.timeout(240)
def test_two_events_there_and_back_have_no_bad_interleaving() -> None:
    verdict = check.check(*check.SHORT)
    print(verdict)
    assert verdict.errors == 0, verdict.first
    assert verdict.states > 1_000_000


@pytest.mark.timeout(240)
@pytest.mark.parametrize("control", ["NO_PRODUCER_FENCE", "NO_CONSUMER_FENCE", "NO_RECHECK", "TAKEN_AFTER"])
def test_without_it_the_model_finds_the_fault(control: str) -> None:
    verdict = check.check(control, *check.LONG, optimise="-O1")
    assert verdict.errors > 0
