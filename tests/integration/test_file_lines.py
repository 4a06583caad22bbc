"""The file trigger following real logs: no line lost, none twice, through rotation, truncation and restarts."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.model.spec import Duration
from agent.triggers.file.spec import FileSpec
from agent.triggers.file.trigger import run
from tests.support.eventually import eventually
from tests.support.recording_sink import RecordingSink


def spec_of(path: Path, **keys: Any) -> FileSpec:
    defaults = {"kind": "file", "read": "lines", "rescan": Duration(3600), "settle": Duration(0.2)}
    return FileSpec(**{**defaults, "path": str(path), **keys})


@asynccontextmanager
async def running(spec: FileSpec, sink: RecordingSink) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(run(spec, sink))
    try:
        await eventually(lambda: sink.state == "up" or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def texts(*sinks: RecordingSink) -> list[str]:
    return [bytes(event.body).decode() for sink in sinks for event in sink.events]


class Writer:
    """Writes numbered lines to a log and rotates it."""

    def __init__(self, path: Path) -> None:
        self.path, self.written, self.rotations = path, 0, 0

    def write(self, n: int) -> None:
        with self.path.open("a") as log:
            for _ in range(n):
                log.write(f"line {self.written} {'x' * (self.written % 80)}\n")
                self.written += 1

    def shift(self) -> None:
        for number in range(30, 0, -1):
            old = self.path.with_name(f"{self.path.name}.{number}")
            if old.exists():
                os.rename(old, self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.rotations += 1

    def rotate(self, *, copy: bool) -> None:
        self.shift()
        first = self.path.with_name(f"{self.path.name}.1")
        if copy:
            shutil.copyfile(self.path, first)
            os.truncate(self.path, 0)
        else:
            os.rename(self.path, first)
            self.path.touch()

    def expected(self) -> list[str]:
        return [f"line {i} {'x' * (i % 80)}" for i in range(self.written)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "app.log"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


async def test_lines_with_place_and_name(log: Path, state: Path) -> None:
    log.write_bytes(b"one\r\n\ntwo\n")
    sink = RecordingSink(state)
    async with running(spec_of(log), sink):
        await eventually(lambda: len(sink.events) == 3)
    assert texts(sink) == ["one", "", "two"]
    assert [event.offset for event in sink.events] == [0, 5, 6]
    assert (sink.events[0].path, sink.events[0].url) == ("app.log", str(log))


async def test_partial_line_waits_for_its_newline(log: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(log, settle=Duration(30)), sink):
        with log.open("w") as file:
            for piece in ("be", "gin", " end\nne", "xt\n"):
                file.write(piece)
                file.flush()
        await eventually(lambda: len(sink.events) == 2)
    assert texts(sink) == ["begin end", "next"]


async def test_partial_line_is_handed_over_when_quiet(log: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(log), sink):
        with log.open("w") as file:
            file.write("no newline")
            file.flush()
            await eventually(lambda: texts(sink) == ["no newline"])
            file.write("\nnext\n")
        await eventually(lambda: len(sink.events) == 2)
    again = RecordingSink(state)
    async with running(spec_of(log), again):
        with log.open("a") as file:
            file.write("last\n")
        await eventually(lambda: again.events)
    assert texts(sink, again) == ["no newline", "next", "last"]


@pytest.mark.parametrize("copy", [False, True], ids=["rename", "copytruncate"])
async def test_rotated_in_a_loop_with_restarts(log: Path, state: Path, copy: bool) -> None:
    writer = Writer(log)
    sinks = []
    for turn in range(6):
        sink = RecordingSink(state)
        sinks.append(sink)
        async with running(spec_of(log), sink):
            for _ in range(3):
                writer.write(200)
                writer.rotate(copy=copy)
                writer.write(50)
                if copy:  # the tool itself loses what is written between copy and truncation, and says so
                    await eventually(lambda: sum(len(item.events) for item in sinks) == writer.written)
            if turn % 2:
                await eventually(lambda: sum(len(item.events) for item in sinks) == writer.written)
        writer.write(20)
    last = RecordingSink(state)
    sinks.append(last)
    async with running(spec_of(log), last):
        await eventually(lambda: sum(len(item.events) for item in sinks) >= writer.written)
    assert texts(*sinks) == writer.expected()


@pytest.mark.parametrize("copy", [False, True], ids=["rename", "copytruncate"])
async def test_several_rotations_while_down(log: Path, state: Path, copy: bool) -> None:
    writer = Writer(log)
    first, second = RecordingSink(state), RecordingSink(state)
    writer.write(100)
    async with running(spec_of(log), first):
        await eventually(lambda: len(first.events) == 100)
    for _ in range(3):
        writer.write(100)
        writer.rotate(copy=copy)
        writer.write(10)
    async with running(spec_of(log), second):
        await eventually(lambda: len(first.events) + len(second.events) >= writer.written)
    assert texts(first, second) == writer.expected()


async def test_rotated_history_is_not_read_at_the_first_start(log: Path, state: Path) -> None:
    log.with_name("app.log.1").write_text("history\n")
    log.write_text("now\n")
    first, second = RecordingSink(state), RecordingSink(state)
    async with running(spec_of(log), first):
        await eventually(lambda: first.events)
    async with running(spec_of(log), second):
        with log.open("a") as file:
            file.write("then\n")
        await eventually(lambda: second.events)
    assert texts(first, second) == ["now", "then"]


async def test_initial_new_begins_at_the_end(log: Path, state: Path) -> None:
    log.write_text("old\n")
    first, second = RecordingSink(state), RecordingSink(state)
    async with running(spec_of(log, initial="new"), first):
        with log.open("a") as file:
            file.write("new\n")
        await eventually(lambda: first.events)
    with log.open("a") as file:
        file.write("while down\n")
    async with running(spec_of(log, initial="new"), second):
        await eventually(lambda: second.events)
    assert texts(first, second) == ["new", "while down"]


async def test_truncated_and_begun_anew(log: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(log), sink):
        log.write_text("a long first line\n")
        await eventually(lambda: len(sink.events) == 1)
        os.truncate(log, 0)
        await eventually(lambda: sink.counters["truncated"] == 1)
        with log.open("a") as file:
            file.write("again, longer than the one before\n")
        await eventually(lambda: len(sink.events) == 2)
    assert texts(sink) == ["a long first line", "again, longer than the one before"]


async def test_truncated_and_longer_than_before_at_the_next_look(log: Path, state: Path) -> None:
    log.write_text("first\n")
    first, second = RecordingSink(state), RecordingSink(state)
    async with running(spec_of(log), first):
        await eventually(lambda: first.events)
    log.write_text("another one\nand one more\n")
    async with running(spec_of(log), second):
        await eventually(lambda: len(second.events) == 2)
    assert texts(second) == ["another one", "and one more"]


async def test_all_names_wanted_and_a_copy_among_them(log: Path, state: Path) -> None:
    """With `*` a rotated name is wanted too, yet a copy is not read twice."""
    writer = Writer(log)
    sink = RecordingSink(state)
    async with running(spec_of(log.parent, patterns=("*",)), sink):
        for _ in range(4):
            writer.write(50)
            await eventually(lambda: len(sink.events) == writer.written)
            writer.rotate(copy=True)
            writer.write(50)
            await eventually(lambda: len(sink.events) == writer.written)
        writer.rotate(copy=False)
        writer.write(50)
        await eventually(lambda: len(sink.events) == writer.written)
    assert texts(sink) == writer.expected()


async def test_many_files_are_followed_side_by_side(log: Path, state: Path) -> None:
    writers = [Writer(log.with_name(f"{i}.log")) for i in range(20)]
    sink = RecordingSink(state)
    async with running(spec_of(log.parent, patterns=("*.log",)), sink):
        for _ in range(5):
            for writer in writers:
                writer.write(10)
        await eventually(lambda: len(sink.events) == 1000)
    for writer in writers:
        mine = [bytes(event.body).decode() for event in sink.events if event.path == writer.path.name]
        assert mine == writer.expected()


async def test_line_longer_than_allowed_comes_in_pieces(log: Path, state: Path) -> None:
    log.write_bytes(b"x" * 250_000 + b"\nnext\n")
    sink = RecordingSink(state)
    async with running(spec_of(log, max_line_size=100_000), sink):
        await eventually(lambda: len(sink.events) == 4)
    assert [len(event.body) for event in sink.events] == [100_000, 100_000, 50_000, 4]


async def test_lines_in_hand_when_stopped_are_remembered_and_others_come_later(log: Path, state: Path) -> None:
    Writer(log).write(100)
    sink = RecordingSink(state)
    sink.hold = True
    async with running(spec_of(log, max_in_flight=10), sink) as task:
        await eventually(lambda: len(sink.held) == 10)
        task.cancel()
        sink.hold = False
        sink.finish_held()
        await eventually(task.done)
    again = RecordingSink(state)
    async with running(spec_of(log), again):
        await eventually(lambda: len(again.events) == 90)
    assert [text.split()[1] for text in texts(sink, again)] == [str(i) for i in range(100)]


async def test_deleted_log_is_read_to_its_end_and_let_go(log: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(log, rescan=Duration(0.1)), sink):
        log.write_text("one\n")
        await eventually(lambda: len(sink.events) == 1)
        with log.open("a") as file:
            os.unlink(log)
            file.write("last\n")
            file.flush()
            await eventually(lambda: len(sink.events) == 2)
        await eventually(lambda: not any("app.log" in _target(name) for name in os.listdir("/proc/self/fd")))
    assert texts(sink) == ["one", "last"]


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
