"""The accounting at length: HEADRACE_ACCOUNT_EVENTS numbers a trigger (100,000), a fault every 2,000."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.fault.accounting.runner import account
from tests.support.mosquitto import require_mosquitto


@pytest.mark.timeout(3600)
def test_nothing_is_lost_and_nothing_shows_twice(tmp_path: Path) -> None:
    require_mosquitto()
    seed = int(os.environ.get("HEADRACE_ACCOUNT_SEED", random.randrange(1 << 16)))
    print(f"HEADRACE_ACCOUNT_SEED={seed}")
    events = int(os.environ.get("HEADRACE_ACCOUNT_EVENTS", "100000"))
    rows = account(tmp_path, events=events, block=2000, seed=seed, per_second=500)
    assert [row for row in rows if row.lost or row.doubled] == []
