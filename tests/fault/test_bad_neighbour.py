"""A function that does its worst harms no other: what its neighbour feels, before and during, as a table.

The short form is tests/integration/test_supervision_neighbour.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agent import Agent, running
from tests.support.neighbours import BAD, GOOD, Row, compare, function, table

SECONDS = 8


def test_a_bad_neighbour_is_hardly_felt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Agent(tmp_path)) as agent:
        agent.start()
        agent.write("good.json", function("good", GOOD))
        rows: list[Row] = [compare(agent, bad, SECONDS) for bad in BAD]
    with capsys.disabled():
        print(f"\n{table(rows)}")
    for row in rows:
        assert row.during.errors == 0, row
        # A quarter of one of the cores is the bad one's by right, and so is what its deaths cost its own processor.
        assert row.during.rate > 0.4 * row.before.rate, row
        assert row.during.p99_ms < 5 * row.before.p99_ms + 100, row
