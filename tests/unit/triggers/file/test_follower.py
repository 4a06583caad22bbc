"""Cutting a growing file into lines, and how far it was handled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.triggers.file import follower as follower_module
from agent.triggers.file.follower import Follower, Progress
from agent.triggers.file.positions import position_at


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    made = open_at(log, 0)
    yield made
    made.close()


def open_at(log: Path, offset: int, line_bytes: int = 1000) -> Follower:
    return Follower(os.open(log, os.O_RDONLY), str(log), str(log), offset, line_bytes=line_bytes)


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as file:
        file.write(data)


def hand_all(follower: Follower) -> list[bytes]:
    bodies = []
    while follower.waiting:
        line = follower.hand()
        bodies.append(line.body)
        follower.done(line)
    return bodies


def test_partial_line_stays_until_it_is_whole(log: Path, follower: Follower) -> None:
    append(log, b"a\nb")
    assert follower.read() is Progress.PARTIAL
    append(log, b"c\n")
    assert follower.read() is Progress.END
    assert hand_all(follower) == [b"a", b"bc"]


def test_finished_partial_line_and_its_late_newline(log: Path, follower: Follower) -> None:
    append(log, b"ab")
    assert follower.read(finish=True) is Progress.END
    append(log, b"\n\nnext\n")
    assert follower.read() is Progress.END
    assert hand_all(follower) == [b"ab", b"", b"next"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_same_lines_whatever_the_size_of_a_read(log: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "CHUNK", chunk)
    expected = [b"x" * n for n in (0, 1, 5, 0, 70, 300, 2)]
    append(log, b"".join(line + b"\n" for line in expected))
    follower = open_at(log, 0)
    while follower.read() is Progress.MORE:
        pass
    assert hand_all(follower) == expected
    assert follower.handled() == position_at(follower.descriptor, follower.inode, log.stat().st_size)
    follower.close()


@pytest.mark.parametrize("chunk", [3, 64, 100_000])
def test_long_line_in_pieces(log: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "CHUNK", chunk)
    append(log, b"0123456789" * 2 + b"01234\nab\n")
    follower = open_at(log, 0, line_bytes=10)
    while follower.read() is Progress.MORE:
        pass
    assert hand_all(follower) == [b"0123456789", b"0123456789", b"01234", b"ab"]
    follower.close()


def test_handled_goes_forward_without_gaps(log: Path, follower: Follower) -> None:
    append(log, b"a\nbb\nccc\n")
    follower.read()
    first, second, third = follower.hand(), follower.hand(), follower.hand()
    assert not follower.done(second)
    assert not follower.done(third)
    assert follower.handled().offset == 0
    assert follower.done(first)
    assert follower.handled() == position_at(follower.descriptor, follower.inode, 9)


def test_position_goes_on_in_a_new_follower(log: Path, follower: Follower) -> None:
    append(log, b"".join(b"line %d\n" % n for n in range(100)))
    follower.read()
    hand_all(follower)
    append(log, b"next\n")
    place = follower.handled()
    again = open_at(log, place.offset)
    assert place.fits(again.descriptor)
    again.read()
    assert hand_all(again) == [b"next"]
    again.close()


def test_truncation_is_seen_even_when_the_file_is_longer_again(log: Path, follower: Follower) -> None:
    append(log, b"first\nsecond\n")
    follower.read()
    os.truncate(log, 0)
    append(log, b"something else that is longer\n")
    assert follower.read() is Progress.TRUNCATED
    hand_all(follower)
    follower.seek(0)
    follower.read()
    assert hand_all(follower) == [b"something else that is longer"]


def test_truncation_where_the_bytes_before_the_place_are_the_same(log: Path, follower: Follower) -> None:
    append(log, b"1 " + b"x" * 300 + b"\n")
    follower.read()
    os.truncate(log, 0)
    append(log, b"2 " + b"x" * 300 + b"\nnext\n")
    assert follower.read() is Progress.TRUNCATED
