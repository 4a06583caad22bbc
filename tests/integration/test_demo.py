"""`headrace demo` as a person starts it: all five sources, the report, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import wait_until

ROOT = Path(__file__).parents[2]

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a demo whose temporary folders lie in `tmp_path`; kills what a failed test leaves."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*options: str, out: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "agent.cli.main", "demo", *options]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        with (tmp_path.parent / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.stdout:
            process.stdout.close()
        for left in [*mentioning(tmp_path), psutil.Process(process.pid)] if process.poll() is None else []:
            left.kill()
        process.wait()


def mentioning(folder: Path) -> list[psutil.Process]:
    """Processes that were started with a path in `folder`: brokers, agents, processors."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def segments(pids: set[int]) -> list[str]:
    """Shared memory of these processes."""
    return [name for name in os.listdir("/dev/shm") if re.match(rf"headrace-({'|'.join(map(str, pids))})-", name)]


def serving(folder: Path) -> set[int]:
    """Process numbers of the whole demo, once its table has counted something."""

    def all_of_it() -> list[psutil.Process]:
        agents = [process for process in mentioning(folder) if "--functions-dir" in process.cmdline()]
        below = [process for agent in agents for process in agent.children(recursive=True)]
        names = [process.name() for process in below]
        # A processor and a worker each, by the function's name; the nurseries have names of their own.
        return below if sum(not name.startswith("headrace") for name in names) >= 10 else []

    found = wait_until(lambda: quietly(all_of_it), within_s=40)
    return {process.pid for process in [*mentioning(folder), *found]}


def quietly(probe: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Processes come and go while we look."""
    try:
        return probe()
    except psutil.Error:
        return []


def test_unattended_every_source_is_handled_and_nothing_is_lost(start: Start, tmp_path: Path) -> None:
    process = start("--for", "4s", "--json")
    out, _ = process.communicate(timeout=50)
    document = json.loads(out)
    assert list(document) == ["sources"]
    assert list(document["sources"]) == ["http", "mqtt", "serial", "file", "cron"]
    for source in document["sources"].values():
        assert list(source) == ["handled", "errors", "lost", "p50_us", "p99_us"]
        assert source["handled"] >= 2
        assert (source["errors"], source["lost"]) == (0, 0)
        assert 0 < source["p50_us"] <= source["p99_us"]
    assert process.returncode == 0
    assert not list(tmp_path.iterdir())
    assert not mentioning(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_from_outside_it_leaves_nothing_behind(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start()
    pids = serving(tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert not mentioning(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not segments(pids)
    assert b"Traceback" not in out + (tmp_path.parent / "stderr").read_bytes()


def test_killed_it_takes_agent_and_broker_with_it(start: Start, tmp_path: Path) -> None:
    process = start()
    pids = serving(tmp_path)
    process.kill()
    process.wait()
    wait_until(lambda: not mentioning(tmp_path), within_s=30)
    assert not segments(pids)


def test_an_agent_that_dies_ends_the_demo_with_the_reason(start: Start, tmp_path: Path) -> None:
    process = start()
    serving(tmp_path)
    forks = ("headrace-wnurse", "headrace-pnurse")
    agents = [item for item in mentioning(tmp_path) if "--functions-dir" in item.cmdline()]
    (agent,) = [item for item in agents if item.name() not in forks and item.ppid() == process.pid]
    agent.kill()
    assert process.wait(30) == 1
    said = (tmp_path.parent / "stderr").read_text()
    assert "the agent ended by itself with exit code -9" in said
    assert "Traceback" not in said
    wait_until(lambda: not mentioning(tmp_path), within_s=20)
    assert not list(tmp_path.iterdir())


def test_on_a_terminal_the_table_is_redrawn_in_place_with_a_url_to_try(start: Start, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 110))
    process = start("--for", "2s", out=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass  # a terminal whose other end was closed says EIO, not end-of-file
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    text = shown.decode()
    assert re.search(r"try:  curl 'http://127\.0\.0\.1:\d+/\?celsius=21'", text)
    assert re.search(r"heartbeat +\d+ +0 .*beat \d+", text)
    assert "\x1b[8F" in text
    assert re.search(r"MQTT broker: (mosquitto|nats-server), at tcp://127\.0\.0\.1:\d+", text)
    assert re.search(r"\x1b\[\?25h\d+ events handled, 0 failed, none lost\s*$", text)


def test_keep_leaves_the_folder(start: Start, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    process = start("--for", "1s", "--keep", str(kept))
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 0, out
    assert (kept / "functions.d" / "thermostat" / "function.yaml").is_file()
    assert "stopped" in (kept / "agent.log").read_text()
