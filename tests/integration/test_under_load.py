"""A real agent under a real HTTP load, while versions are swapped and processes are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, call, running
from tests.support.eventually import wait_until
from tests.support.load import load


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with running(Agent(tmp_path).start()) as agent:
        yield agent


def deploy(agent: Agent, text: str) -> str:
    """A function that answers `text`; its address."""
    folder = agent.functions / "hello"
    folder.mkdir(exist_ok=True)
    (folder / "function.yaml").write_text("metadata: {name: hello}\nspec: {runtime: python, handler: 'main:handler'}\n")
    temporary = folder / ".main.py.tmp"
    temporary.write_text(f"def handler(context, event):\n    return {text!r}\n")
    temporary.rename(folder / "main.py")
    address = str(agent.serving("hello")["triggers"]["default-http"]["address"])
    wait_until(lambda: call(address) == text)
    return address


def test_swaps_under_load_fail_no_request(agent: Agent) -> None:
    address = deploy(agent, "version 0")
    with load(address, 6) as seen:
        for number in range(1, 5):
            deploy(agent, f"version {number}")
    assert seen.requests > 1000
    assert (seen.errors, seen.refused) == (0, 0), seen.output


def test_a_worker_killed_under_load_costs_the_event_in_hand(agent: Agent) -> None:
    address = deploy(agent, "hello")
    kills = 3
    with load(address, 5) as seen:
        for _ in range(kills):
            (worker,) = agent.serving("hello")["workers"]
            os.kill(worker["pid"], signal.SIGKILL)
            wait_until(lambda pid=worker["pid"]: agent.status("hello")["workers"][0]["pid"] not in (0, pid))
            wait_until(lambda: agent.status("hello")["workers"][0]["ready"])
    assert seen.errors == 0, seen.output
    assert seen.refused <= kills, seen.output
    failed = agent.status("hello")["triggers"]["default-http"]
    assert set(failed["results"]) <= {"worker died"}


def test_a_processor_killed_under_load_is_back_on_the_same_port(agent: Agent) -> None:
    address = deploy(agent, "hello")
    with load(address, 4) as seen:
        first = agent.serving("hello")["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: agent.serving("hello")["pid"] != first)
        assert call(address) == "hello"
    assert seen.requests > 1000
    assert not [path for path in os.listdir("/dev/shm") if path.startswith(f"headrace-{first}-")]


def test_a_killed_agent_leaves_no_orphan_and_every_function_comes_back(agent: Agent) -> None:
    address = deploy(agent, "hello")
    left = [process.pid for process in agent.children()]
    agent.stop(signal.SIGKILL)
    agent.start()
    assert call(str(agent.serving("hello")["triggers"]["default-http"]["address"])) == "hello"
    assert address == agent.serving("hello")["triggers"]["default-http"]["address"]
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left))
    owners = {path.split("-")[1] for path in os.listdir("/dev/shm") if path.startswith("headrace-")}
    assert not owners & {str(pid) for pid in left}


def test_a_drop_in_answers_and_its_removal_leaves_nothing(agent: Agent) -> None:
    begun = time.monotonic()
    address = deploy(agent, "hello")
    assert time.monotonic() - begun < 10
    children = [process.pid for process in agent.children()]
    for path in sorted((agent.functions / "hello").iterdir()):
        path.unlink()
    (agent.functions / "hello").rmdir()
    wait_until(lambda: not agent.status("hello"))
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
    with pytest.raises(OSError, match="refused"):
        call(address)
    assert not any(path.split("-")[1] in map(str, children) for path in os.listdir("/dev/shm") if "headrace-" in path)
