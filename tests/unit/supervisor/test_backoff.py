from __future__ import annotations

from agent.supervisor.backoff import Backoff, Policy


def test_delays_double_up_to_the_longest_then_park():
    backoff = Backoff(Policy(first_s=1, longest_s=4, limit=5, parked_s=300), lambda: 0.0)
    assert [backoff.failed() for _ in range(4)] == [0.5, 1.0, 2.0, 2.0]
    assert not backoff.parked
    assert backoff.failed() == 300
    assert backoff.parked
    backoff.reset()
    assert not backoff.parked
    assert backoff.failed() == 0.5


def test_what_is_unavailable_never_parks():
    backoff = Backoff(Policy(first_s=1, longest_s=4, limit=2), lambda: 0.0)
    assert [backoff.unavailable() for _ in range(4)] == [0.5, 1.0, 2.0, 2.0]
    assert not backoff.parked


def test_jitter_stays_within_half_and_whole():
    policy = Policy(first_s=1, longest_s=100)
    assert Backoff(policy, lambda: 0.999).failed() < 1.0
    assert Backoff(policy, lambda: 0.0).failed() == 0.5
