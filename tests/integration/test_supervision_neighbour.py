"""A function that does its worst harms no other. The long form, with a table: tests/fault/test_bad_neighbour.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.processor.limits.cgroup import hierarchies
from tests.support.agent import Agent, running
from tests.support.neighbours import BAD, GOOD, compare, function

WANTED = frozenset(["memory", "cpu", "pids"])


@pytest.mark.skipif(
    frozenset().union(*(item.controllers for item in hierarchies(WANTED))) != WANTED,
    reason="no control groups here: nothing binds a function that forks without end",
)
def test_a_bad_neighbour_costs_no_answer(tmp_path: Path) -> None:
    with running(Agent(tmp_path)) as agent:
        agent.start()
        agent.write("good.json", function("good", GOOD))
        for bad in BAD:
            row = compare(agent, bad, 1)
            assert row.during.errors == 0, row
            assert row.during.rate > 0.15 * row.before.rate, row  # of a second on a machine that others use too
