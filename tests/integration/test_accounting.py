"""Every event is accounted for while faults strike: the short form of tests/fault/test_accounting.py."""

from __future__ import annotations

from pathlib import Path

from tests.fault.accounting.runner import account
from tests.support.mosquitto import require_mosquitto


def test_nothing_is_lost_and_nothing_shows_twice(tmp_path: Path) -> None:
    require_mosquitto()
    rows = account(tmp_path, events=2000, block=334, seed=1, per_second=400)
    assert len({row.fault for row in rows}) == 7  # six, and none
    assert [row for row in rows if row.lost or row.doubled] == []
