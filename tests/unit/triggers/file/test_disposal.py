"""Moving files away: never over another file, also to another file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agent.model.event import Outcome, Result
from agent.triggers.file import disposal
from agent.triggers.file.disposal import fate_of, move
from agent.triggers.file.ledger import Fate
from tests.support.tools import lacking


def test_taken_names_get_a_number(tmp_path: Path) -> None:
    for text in ("1", "2", "3"):
        (tmp_path / "a.txt").write_text(text)
        move(str(tmp_path / "a.txt"), str(tmp_path / "sub" / "done" / "a.txt"))
    done = tmp_path / "sub" / "done"
    assert {name: (done / name).read_text() for name in os.listdir(done)} == {
        "a.txt": "1",
        "a-1.txt": "2",
        "a-2.txt": "3",
    }


def test_file_system_without_the_careful_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_offered(*_: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(disposal, "_renameat2", not_offered)
    test_taken_names_get_a_number(tmp_path)


def second_file_system() -> TemporaryDirectory[str]:
    if not os.access("/dev/shm", os.W_OK):
        lacking("needs a second file system: /dev/shm")
    return TemporaryDirectory(dir="/dev/shm")


def test_to_another_file_system(tmp_path: Path) -> None:
    with second_file_system() as other:
        for text in ("1", "2"):
            (tmp_path / "a").write_text(text)
            os.utime(tmp_path / "a", ns=(5, 5))
            move(str(tmp_path / "a"), f"{other}/a")
        assert sorted(os.listdir(other)) == ["a", "a-1"]
        assert Path(other, "a-1").read_text() == "2"
        assert Path(other, "a").stat().st_mtime_ns == 5
    assert not (tmp_path / "a").exists()


def test_copy_that_fails_leaves_the_source_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disposal, "_sync", full)
    (tmp_path / "a").write_text("1")
    with second_file_system() as other:
        with pytest.raises(OSError, match="No space"):
            move(str(tmp_path / "a"), f"{other}/a")
        assert os.listdir(other) == []
    assert (tmp_path / "a").read_text() == "1"


def test_fate() -> None:
    assert fate_of(Outcome(Result.REPLIED, 204)) is Fate.HANDLED
    assert fate_of(Outcome(Result.REPLIED, 500)) is Fate.FAILED
    assert fate_of(Outcome(Result.WORKER_DIED)) is Fate.FAILED
    assert fate_of(Outcome(Result.STOPPED)) is None
