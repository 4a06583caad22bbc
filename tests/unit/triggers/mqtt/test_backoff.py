"""Full jitter, growth, bound, and what ends the growth."""

from __future__ import annotations

from agent.triggers.mqtt.backoff import Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock) -> tuple[Backoff, list[tuple[float, float]]]:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    return Backoff(1.0, 8.0, stable_s=30.0, clock=clock, uniform=uniform), asked


def test_doubles_up_to_its_bound_and_draws_from_zero() -> None:
    backoff, asked = make(Clock())
    assert [backoff.delay_s() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    assert {low for low, _ in asked} == {0.0}


def test_a_connection_that_is_kicked_soon_is_one_more_failure() -> None:
    clock = Clock()
    backoff, _ = make(clock)
    for expected in (1, 2, 4):
        backoff.up()
        clock.now += 29
        assert backoff.delay_s() == expected
    assert backoff.kicks == 3


def test_a_stable_connection_ends_the_growth() -> None:
    clock = Clock()
    backoff, _ = make(clock)
    backoff.delay_s()
    backoff.delay_s()
    backoff.up()
    clock.now += 30
    assert backoff.delay_s() == 1 and backoff.kicks == 0
    assert backoff.delay_s() == 2


def test_never_overflows() -> None:
    backoff, _ = make(Clock())
    assert max(backoff.delay_s() for _ in range(3000)) == 8
