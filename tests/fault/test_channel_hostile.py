"""A worker that misbehaves towards its own processor: bytes flipped in a live segment, and answers that cannot be.

The processor must go on serving, without an exception that nobody caught, without a blocked loop; a worker whose
channel is broken is replaced, and the log says why. HEADRACE_FUZZ_S: seconds of flipping, 20 if not said.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from agent.model.event import Result
from shmem.segment import FOLDER
from tests.support.c_program import ROOT
from tests.support.eventually import eventually
from tests.support.processor import RunningProcessor, running

FUZZ_S = int(os.environ.get("HEADRACE_FUZZ_S", "20"))
ECHO = "def handler(context, event):\n    return event.body\n"
# The worker's own end of the channel, for handlers that do what no handler should.
REACH = """
import os, sys, time

def channel():
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            for found in (value, getattr(value, "channel", None), getattr(value, "_channel", None)):
                if type(found).__name__ == "WorkerChannel":
                    return found
        frame = frame.f_back
    raise LookupError("no channel")
"""
CONTROL_WORDS = [64, 68, 72, 76, 80, 84, 128, 192, 256, 320, 384, 448]


def segments() -> list[Path]:
    return [path for path in FOLDER.glob(f"headrace-{os.getpid()}-*") if path.name.count("-") == 3]


@contextlib.contextmanager
def log_lines() -> Iterator[list[str]]:
    """What the processor logs from here on, with its fields."""
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(f"{message.record['message']} {message.record['extra']}"))
    try:
        yield lines
    finally:
        logger.remove(number)


@contextlib.asynccontextmanager
async def watched(
    folder: Path, code: str, workers: int = 1, **spec: Any
) -> AsyncIterator[tuple[RunningProcessor, list[str]]]:
    """A processor, and what nobody caught in its loop: asserted to be nothing at the end."""
    uncaught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: uncaught.append(context))
    with log_lines() as lines:
        async with running(folder, code, spec=spec, numWorkers=workers) as f:
            yield f, lines
    assert uncaught == []


def flip(path: Path, chance: random.Random) -> None:
    """Change a few bytes somewhere in that segment, where it hurts more often than elsewhere."""
    with (
        contextlib.suppress(FileNotFoundError, ValueError),
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as all,
    ):
        ring = (len(all) - 4096) // 2
        tail = int.from_bytes(all[320:324], "little") % ring
        place = chance.random()
        for _ in range(chance.choice([1, 1, 2, 8, 64])):
            if place < 0.3:
                at = chance.choice(CONTROL_WORDS) + chance.randrange(4)
            elif place < 0.8:  # what the worker has just written
                at = 4096 + ring + (tail - chance.randrange(1, 512)) % ring
            else:
                at = chance.randrange(40, len(all))
            all[at] = chance.choice([0, 1, 7, 8, 0x7F, 0x80, 0xFF, chance.randrange(256)])


@pytest.mark.timeout(FUZZ_S + 300)
async def test_bytes_flipped_in_a_live_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(5)
    results: Counter[str] = Counter()
    slowest, flips, until = 0.0, 0, time.monotonic() + FUZZ_S
    async with watched(tmp_path, ECHO, workers=3, eventTimeout="150ms") as (f, lines):
        while time.monotonic() < until:
            begun = time.monotonic()
            outcomes = [f.start(os.urandom(chance.choice([0, 10, 500, 5000]))) for _ in range(chance.randrange(1, 30))]
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
                for path in segments():
                    flip(path, chance)
                    flips += 1
            async with asyncio.timeout(60):
                results.update([(await outcome).result.value for outcome in outcomes])
            slowest = max(slowest, time.monotonic() - begun)
        served = await eventually_served(f)
        replaced = Counter(re.sub(r"\d+", "N", line) for line in lines if line.startswith("worker is replaced"))
    with capsys.disabled():
        print(f"\n{flips} flips in {FUZZ_S} s: {dict(results)}, slowest round {slowest:.1f} s")
        for line, count in replaced.most_common():
            print(f"{count:>6} {line}")
    assert served
    assert any("broken channel" in line for line in replaced)
    assert segments() == []


def test_a_segment_written_to_by_another_process_all_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tests.fault.scribble_rounds", str(FUZZ_S)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=FUZZ_S + 60)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stderr


async def eventually_served(f: RunningProcessor) -> bool:
    """Answers rightly again: what was flipped last may still cost a worker."""
    for _ in range(20):
        async with asyncio.timeout(30):
            if (await f.call(b"after")).body == b"after":
                return True
    return False


LOG_FIELDS = [
    "[1, 2]",
    "5",
    "null",
    '"text"',
    "{",
    "[" * 1500 + "]" * 1500,
    '{"time": "x"}',
    '{"level": []}',
    '{"a": 1e999}',
]


async def test_log_records_that_cannot_be(tmp_path: Path) -> None:
    code = (
        REACH
        + f"FIELDS = {LOG_FIELDS!r}"
        + """
def handler(context, event):
    for fields in FIELDS:
        channel().log(0, 2**32 - 1, 2**64 - 1, "\\ud800 odd", fields)
        channel().log(event.id and 1, 1, 0, "", fields)
    return "done"
"""
    )
    async with watched(tmp_path, code) as (f, _):
        assert (await f.call(log_level="debug")).body == b"done"
        assert (await f.call()).body == b"done"


async def test_replies_and_controls_that_cannot_be(tmp_path: Path) -> None:
    code = (
        REACH
        + """
def handler(context, event):
    for id in (0, 999, 2**64 - 1):
        channel().reply(id, 2**32 - 1, "\\x00", [("", "")] * 20, b"to nobody")
    for kind in (0x63, 6, 7, 8, 1, 4, 0xffff):
        channel().control(kind, b"\\xff" * 50)
    return "done"
"""
    )
    async with watched(tmp_path, code) as (f, _):
        for _ in range(3):
            assert (await f.call()).body == b"done"


async def test_two_replies_to_one_event(tmp_path: Path) -> None:
    code = (
        REACH
        + """
ids = 0
def handler(context, event):
    global ids
    ids += 1
    channel().reply(ids, 200, "text/plain", None, b"first")
    return "second"
"""
    )
    async with watched(tmp_path, code) as (f, lines):
        assert [(await f.call()).body for _ in range(3)] == [b"first"] * 3
        await eventually(lambda: sum(line.startswith("reply to an event") for line in lines) == 3)


async def test_a_worker_that_closes_its_doorbell_is_replaced_and_costs_no_time(tmp_path: Path) -> None:
    """End-of-file makes a descriptor readable for ever: the loop must not turn around it."""
    code = (
        REACH
        + """
def handler(context, event):
    if event.body == b"deaf":
        os.closerange(3, 256)
        time.sleep(60)
    return event.body
"""
    )
    async with watched(tmp_path, code) as (f, lines):
        (first,) = f.workers()
        begun, cpu = time.monotonic(), time.process_time()
        outcome = await f.call(b"deaf")
        assert outcome.result is Result.WORKER_DIED
        assert time.monotonic() - begun < 30
        assert time.process_time() - cpu < 0.5 * (time.monotonic() - begun) + 0.2
        assert (await f.call(b"next")).body == b"next"
        assert f.workers() != [first]
        assert any("worker is replaced" in line for line in lines)
