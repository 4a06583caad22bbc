"""Deaths in a row: what they cost, and when they are a crash loop."""

from __future__ import annotations

from agent.processor.health import CALM_S, DEATHS, CrashLoop


def test_the_first_death_is_answered_at_once_and_later_ones_wait_up_to_ten_seconds() -> None:
    crashes = CrashLoop()
    pauses = [crashes.died(0.1, answered=True) for _ in range(14)]
    assert pauses[0] == 0
    assert all(later > 0 for later in pauses[1:])
    assert 5 <= pauses[-1] <= 10
    assert crashes.died(CALM_S, answered=True) == 0


def test_a_hung_worker_is_followed_soon() -> None:
    crashes = CrashLoop()
    assert max(crashes.died(0.1, answered=True, hung=True) for _ in range(14)) <= 0.5


def test_only_deaths_without_an_answer_between_are_a_loop() -> None:
    crashes = CrashLoop()
    for _ in range(20):
        crashes.died(0.1, answered=True)
    assert not crashes.failing
    for _ in range(DEATHS - 1):
        crashes.died(0.1, answered=False)
    assert not crashes.failing
    crashes.died(0.1, answered=False)
    assert crashes.failing
    crashes.recovered()
    assert not crashes.failing


def test_one_that_lived_long_ends_the_row() -> None:
    crashes = CrashLoop()
    for _ in range(DEATHS):
        crashes.died(0.1, answered=False)
    crashes.died(CALM_S + 1, answered=False)
    assert not crashes.failing
