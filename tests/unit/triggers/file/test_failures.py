"""What the log says of lines that were given up: the first, then how many, never a flood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from agent.model.event import Outcome, Result
from agent.triggers.file import failures
from agent.triggers.file.failures import Failures
from agent.triggers.file.spec import FileSpec
from tests.support.eventually import eventually
from tests.support.recording_sink import RecordingSink

FAILED = Outcome(Result.WORKER_DIED, attempts=3)


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, object]]]]:
    lines: list[tuple[str, dict[str, object]]] = []
    number = logger.add(
        lambda message: lines.append((message.record["message"], dict(message.record["extra"]))), level="WARNING"
    )
    yield lines
    logger.remove(number)


def failures_of(tmp_path: Path) -> Failures:
    return Failures(FileSpec(kind="file", path="/log"), RecordingSink(tmp_path))


async def test_the_first_line_at_once_the_others_at_the_end(
    tmp_path: Path, told: list[tuple[str, dict[str, object]]]
) -> None:
    ours = failures_of(tmp_path)
    for offset in range(100):
        ours.line("/log/a", offset, FAILED)
    first = {"path": "/log/a", "offset": 0, "attempts": 3, "because": "worker died", "dead_letter": True}
    assert told == [("a line was given up", first)]
    ours.close()
    assert told[1:] == [("more lines were given up", {"lines": 99, "last_path": "/log/a"})]


async def test_how_many_more_is_told_in_intervals(
    tmp_path: Path, told: list[tuple[str, dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "LINES_EVERY_S", 0.01)
    ours = failures_of(tmp_path)
    ours.line("/log/a", 0, FAILED)
    ours.line("/log/b", 1, FAILED)
    await eventually(lambda: len(told) == 2)
    await eventually(lambda: ours._timer is None)
    ours.line("/log/c", 2, FAILED)
    ours.close()
    assert [sentence for sentence, _ in told] == [
        "a line was given up",
        "more lines were given up",
        "a line was given up",
    ]
