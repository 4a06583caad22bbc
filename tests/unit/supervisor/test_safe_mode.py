"""When the agent takes itself for the one that loops."""

from __future__ import annotations

from pathlib import Path

from agent.store import atomic
from agent.supervisor.metrics import exposition
from agent.supervisor.safe_mode import SafeMode, Starts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def starts(folder: Path, clock: Clock, most: int = 3) -> Starts:
    """As each new process of the agent makes it."""
    return Starts(folder / "starts.json", most, 60.0, atomic.write, clock)


def test_so_many_starts_in_a_short_time_are_a_loop(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(3):
        assert starts(tmp_path, clock).begin() == ""
        clock.now += 5
    assert "3 times within 60 s" in starts(tmp_path, clock).begin()


def test_a_start_that_ended_in_order_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(10):
        begun = starts(tmp_path, clock)
        assert begun.begin() == ""
        begun.end()
    assert not (tmp_path / "starts.json").exists()


def test_starts_long_ago_and_of_another_boot_do_not_count(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(10):
        assert starts(tmp_path, clock).begin() == ""
        clock.now += 21
    for _ in range(10):
        assert starts(tmp_path, clock).begin() == ""
        (tmp_path / "starts.json").write_text('{"boot": "another", "starts": [1, 2, 3, 4]}')


def test_a_damaged_record_and_a_missing_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "starts.json").write_bytes(b"\0\0")
    assert starts(tmp_path, Clock()).begin() == ""
    assert starts(tmp_path / "none", Clock()).begin() == ""
    starts(tmp_path / "none", Clock()).end()


def test_zero_switches_it_off(tmp_path: Path) -> None:
    clock = Clock()
    assert all(starts(tmp_path, clock, 0).begin() == "" for _ in range(10))
    assert not (tmp_path / "starts.json").exists()


async def test_the_state_says_why_and_how_to_leave(tmp_path: Path) -> None:
    subject = SafeMode("it was started 3 times")
    statistics = await subject.statistics()
    assert "SIGHUP" in statistics["safe_mode"] and "3 times" in subject.unready()["agent"]
    assert "headrace_safe_mode 1\n" in exposition(statistics)
