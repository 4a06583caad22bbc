"""What the kernel says about writers, and that asking does no harm."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.triggers.file.leases import is_being_written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_text("some text")
    return file


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


def test_a_writer_is_seen_until_it_closes(path: Path, descriptor: int) -> None:
    assert is_being_written(descriptor) is False
    with path.open("a"), path.open("a"):
        assert is_being_written(descriptor) is True
    with path.open("rb"):
        assert is_being_written(descriptor) is False


def test_a_writer_through_a_mapping_is_seen(path: Path, descriptor: int) -> None:
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert is_being_written(descriptor) is True
    mapped.close()
    assert is_being_written(descriptor) is False


def test_somebody_elses_file_gives_no_answer(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, command: int, __: Any) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(errno.EACCES, "Permission denied")
        return 0

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert is_being_written(descriptor) is None


def test_who_opens_the_file_meanwhile_waits_a_moment_and_nobody_is_killed(path: Path) -> None:
    """The lease is broken while it is held, many times: the signal must not end this process."""
    stop = threading.Event()
    opened = 0

    def write() -> None:
        nonlocal opened
        while not stop.is_set():
            with path.open("a"):
                opened += 1

    writer = threading.Thread(target=write)
    writer.start()
    answers = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while len(answers) < 3000 or opened < 300:
            answers.append(is_being_written(descriptor))
    finally:
        stop.set()
        writer.join()
        os.close(descriptor)
    assert set(answers) <= {True, False}
