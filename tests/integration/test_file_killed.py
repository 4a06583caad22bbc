"""The file trigger killed with SIGKILL, again and again: nothing is lost, and only what was in hand comes twice.

The trigger runs in a child process (this module as a program) whose sink writes every event to a file.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from agent.model.event import Event, Outcome, Result
from agent.model.spec import Duration
from agent.triggers.file.lines import SAVE_LINES
from agent.triggers.file.spec import FileSpec
from agent.triggers.file.trigger import run
from tests.support.eventually import wait_until
from tests.support.recording_sink import RecordingSink

IN_FLIGHT = 8
ROOT = Path(__file__).parents[2]


async def child(read: str, on_success: str, path: str, state: str, output: str) -> None:
    """Run the trigger until killed, or until SIGTERM stops it in order."""
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(event: Event) -> Outcome:
        os.write(written, bytes(event.body) + b"\n")
        return Outcome(Result.REPLIED, 200)

    spec = FileSpec(
        kind="file",
        path=path,
        read=read,
        on_success=on_success,
        max_in_flight=IN_FLIGHT,
        settle=Duration(0.1),
        rescan=Duration(1),
    )
    task = asyncio.ensure_future(run(spec, RecordingSink(Path(state), answer)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.gather(task, return_exceptions=True)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.test_file_killed", *map(str, arguments)], cwd=ROOT
    )


def lines_of(output: Path) -> list[str]:
    return output.read_text().split() if output.exists() else []


@pytest.mark.parametrize("on_success", ["leave", "delete"])
def test_killed_while_files_come_in(tmp_path: Path, on_success: str) -> None:
    inbox, state, output = tmp_path / "inbox", tmp_path / "state", tmp_path / "output"
    inbox.mkdir()
    state.mkdir()
    total, kills = 2000, 6

    def produce() -> None:
        for i in range(total):
            (inbox / f".{i}").write_text(f"{i}")
            os.rename(inbox / f".{i}", inbox / f"{i}")

    producer = threading.Thread(target=produce)
    producer.start()
    for turn in range(1, kills + 1):
        process = start("files", on_success, inbox, state, output)
        wait_until(lambda turn=turn: len(lines_of(output)) >= turn * total // (kills + 2), 20)
        process.kill()
        process.wait()
    producer.join()
    process = start("files", on_success, inbox, state, output)
    wait_until(lambda: len(set(lines_of(output))) == total, 20)
    (inbox / "last").write_text(f"{total}")  # so that the last one is surely running when it is stopped
    wait_until(lambda: len(set(lines_of(output))) == total + 1, 20)
    process.terminate()
    assert process.wait(10) == 0
    seen = Counter(lines_of(output))
    assert set(seen) == {str(i) for i in range(total + 1)}
    assert sum(n - 1 for n in seen.values()) <= kills * 4 * IN_FLIGHT  # batches of memory that were not written yet


def test_killed_while_a_log_grows_and_rotates(tmp_path: Path) -> None:
    logs, state, output = tmp_path / "logs", tmp_path / "state", tmp_path / "output"
    logs.mkdir()
    state.mkdir()
    total, kills = 6000, 5
    process = start("lines", "leave", logs / "app.log", state, output)
    wait_until(lambda: (state / "positions.log").exists() and (state / "positions.log").stat().st_size)
    written = 0
    for turn in range(1, kills + 2):
        while written < turn * total // (kills + 1):
            with (logs / "app.log").open("a") as log:
                log.writelines(f"line-{written + i:06d}\n" for i in range(50))
            written += 50
            if written % 250 == 0:
                rotate(logs / "app.log", keep=30)
        wait_until(lambda turn=turn: len(set(lines_of(output))) >= (turn - 1) * total // (kills + 1) + 1, 20)
        process.kill()
        process.wait()
        process = start("lines", "leave", logs / "app.log", state, output)
    with (logs / "app.log").open("a") as log:
        log.write(f"line-{written:06d}\n")
    written += 1
    wait_until(lambda: len(set(lines_of(output))) == written, 20)
    process.terminate()
    assert process.wait(10) == 0
    seen = Counter(lines_of(output))
    assert set(seen) == {f"line-{i:06d}" for i in range(written)}
    assert sum(n - 1 for n in seen.values()) <= kills * 2 * SAVE_LINES


def rotate(path: Path, keep: int) -> None:
    """app.log -> app.log.1 -> app.log.2 ..., as logrotate does."""
    for number in range(keep, 0, -1):
        old = path.with_name(f"{path.name}.{number}")
        if old.exists():
            os.rename(old, path.with_name(f"{path.name}.{number + 1}"))
    os.rename(path, path.with_name(f"{path.name}.1"))


if __name__ == "__main__":
    asyncio.run(child(*sys.argv[1:]))
