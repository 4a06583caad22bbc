"""What a trigger's statistics keep."""

from __future__ import annotations

from agent.processor.statistics import TriggerStatistics


def test_of_a_reply_only_the_beginning_is_kept() -> None:
    statistics = TriggerStatistics("http")
    statistics.last = b"x" * 1000
    assert statistics.last == b"x" * 80
    assert statistics.as_dict()["last"] == "x" * 80
    statistics.last = "é".encode() * 1000  # cut between characters it stays readable
    assert statistics.as_dict()["last"].startswith("é" * 40)
