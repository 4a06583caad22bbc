"""Functions forked from the nurseries: they find what a fresh interpreter gives them, and go when they should."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.agent import Agent, call, running
from tests.support.eventually import wait_until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with running(Agent(tmp_path).start()) as agent:
        yield agent


def deploy(agent: Agent, code: str, files: dict[str, str] | None = None) -> str:
    """A folder of code; the function's address."""
    folder = agent.functions / "probe"
    folder.mkdir()
    for name, text in {"main": code, **(files or {})}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "function.yaml").write_text("metadata: {name: probe}\nspec: {runtime: python, handler: 'main:handler'}\n")
    return str(agent.serving("probe")["triggers"]["default-http"]["address"])


def named(agent: Agent, name: str) -> psutil.Process:
    assert agent.process is not None
    found = psutil.Process(agent.process.pid).children(recursive=True)
    return next(process for process in found if process.name() == name)


def test_a_forked_worker_sees_nothing_of_ours(agent: Agent) -> None:
    code = """
import sys, os, signal
import agent, runtimes
def handler(context, event):
    return {
        "agent": agent.WHOSE, "runtimes": runtimes.WHOSE,
        "ours": sorted(name for name in sys.modules if name.split(".")[0] in ("msgspec", "loguru", "uvloop", "shmem")),
        "cwd": os.getcwd(), "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "variables": [name for name in os.environ if name.startswith("HEADRACE")],
        "descriptors": len(os.listdir("/proc/self/fd")), "session": os.getsid(0) == os.getpid(),
    }
"""
    address = deploy(agent, code, dict.fromkeys(("agent", "runtimes"), "WHOSE = 'the function'\n"))
    seen = json.loads(call(address))
    assert (seen["agent"], seen["runtimes"]) == ("the function", "the function")
    assert seen["ours"] == []
    assert seen["term"] and seen["session"]
    assert not set(seen["variables"]) - {"HEADRACE_PROCESSOR", "HEADRACE_CHANNEL"}
    assert seen["descriptors"] <= 8
    (worker,) = agent.status("probe")["workers"]
    assert psutil.Process(worker["pid"]).parent().name() == "headrace-wnurse"  # type: ignore[union-attr]


def test_workers_of_one_function_do_not_share_their_random_numbers(agent: Agent) -> None:
    address = deploy(agent, "import random\nfirst = random.random()\ndef handler(c, e): return str(first)\n")
    first = call(address)
    os.kill(agent.status("probe")["workers"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: call(address) != first)


def test_a_busy_worker_goes_with_its_processor(agent: Agent) -> None:
    deploy(
        agent,
        "def init_context(c):\n    import threading\n    threading.Thread(target=spin).start()\n"
        "def spin():\n    while True: pass\ndef handler(c, e): ...\n",
    )
    status = agent.serving("probe")
    worker = status["workers"][0]["pid"]
    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(worker))
    wait_until(lambda: agent.serving("probe")["pid"] != status["pid"])


def test_when_the_nursery_dies_workers_are_started_by_command_line(agent: Agent) -> None:
    address = deploy(agent, "import os\ndef handler(c, e): return str(os.getpid())\n")
    first = call(address)
    named(agent, "headrace-wnurse").kill()
    wait_until(lambda: agent.status("probe")["workers"][0]["pid"] not in (0, int(first)))
    assert call(address) != first
    assert psutil.Process(int(call(address))).parent().pid == agent.status("probe")["pid"]  # type: ignore[union-attr]


@pytest.mark.parametrize("nursery", ["headrace-pnurse", "headrace-wnurse"])
def test_without_a_nursery_functions_still_start(agent: Agent, nursery: str) -> None:
    named(agent, nursery).kill()
    address = deploy(agent, "def handler(c, e): return 'still'\n")
    assert call(address) == "still"
    assert "without the nursery" in agent.log()


def test_the_nurseries_end_with_a_killed_agent(agent: Agent) -> None:
    deploy(agent, "def handler(c, e): ...\n")
    assert agent.process is not None
    left = psutil.Process(agent.process.pid).children(recursive=True)
    agent.stop(signal.SIGKILL)
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in left))
