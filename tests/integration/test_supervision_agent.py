"""The agent's own life and what it says of functions in trouble: safe mode, failing, parked, nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import signal
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.support.agent import FAKE, Agent, running
from tests.support.eventually import wait_until


def function(name: str, code: str, **spec: object) -> str:
    given = {
        "runtime": "python",
        "handler": "main:handler",
        "build": {"functionSourceCode": base64.b64encode(textwrap.dedent(code).encode()).decode()},
        "triggers": {"web": {"kind": "http", "attributes": {"port": 0}}},
    }
    return json.dumps({"metadata": {"name": name}, "spec": given | spec})


def fake(name: str) -> str:
    return json.dumps({"metadata": {"name": name}, "spec": {"runtime": "python", "handler": "f:h"}})


def status_of(address: str, body: bytes = b"x") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_an_agent_that_is_killed_again_and_again_starts_without_functions(tmp_path: Path) -> None:
    with running(Agent(tmp_path, FAKE)) as agent:
        agent.write("f.json", fake("f"))
        for _ in range(5):
            agent.start()
            assert agent.get("/statistics")[1].find("safe_mode") < 0
            agent.stop(signal.SIGKILL)
        agent.start()
        status, text = agent.get("/readyz")
        assert status == 503 and "SIGHUP" in text and "5 times" in text
        assert agent.get("/livez")[0] == 200
        assert "headrace_safe_mode 1" in agent.get("/metrics")[1]
        assert agent.status("f") == {}
        assert "safe mode" in agent.log()
        os.kill(agent.admin()["pid"], signal.SIGHUP)
        agent.serving("f")
        assert agent.stop() == 0
        agent.start()
        agent.serving("f")


def test_an_agent_stopped_in_safe_mode_starts_its_functions_next_time(tmp_path: Path) -> None:
    with running(Agent(tmp_path, FAKE)) as agent:
        agent.write("f.json", fake("f"))
        for _ in range(5):
            agent.start()
            agent.stop(signal.SIGKILL)
        agent.start()
        assert agent.get("/readyz")[0] == 503
        assert agent.stop() == 0
        agent.start()
        agent.serving("f")


def test_a_function_whose_workers_only_die_is_failing_answers_503_and_recovers(tmp_path: Path) -> None:
    """Its workers start well, and end a moment later by themselves, with no event in hand."""
    sick = tmp_path / "sick"
    sick.touch()
    code = f"""
        import os, threading
        def init_context(context):
            if os.path.exists({str(sick)!r}) and os.path.exists({str(sick)!r} + "er"):
                threading.Timer(0.01, os._exit, [7]).start()
        def handler(context, event):
            if event.body == b"die":
                os._exit(7)
            return "well"
    """
    with running(Agent(tmp_path)) as agent:
        agent.start()
        agent.write("good.json", function("good", "def handler(context, event):\n    return 'ok'\n"))
        agent.write("bad.json", function("bad", code))
        address = agent.serving("bad")["triggers"]["web"]["address"]
        good = agent.serving("good")
        Path(f"{sick}er").touch()
        status_of(address, b"die")
        wait_until(lambda: agent.status("bad")["state"] == "failing", within_s=30)
        assert "exit code 7" in agent.status("bad")["message"]
        assert status_of(address) in (503, 500)
        assert agent.get("/readyz")[0] == 503
        assert status_of(good["triggers"]["web"]["address"]) == 200
        assert agent.status("good")["pid"] == good["pid"]
        sick.unlink()
        wait_until(lambda: status_of(address) == 200, within_s=30)
        wait_until(lambda: agent.status("bad")["state"] == "serving", within_s=30)
        assert agent.status("bad")["message"] == ""


def test_a_function_that_cannot_start_is_parked_with_the_reason_and_disturbs_no_other(tmp_path: Path) -> None:
    with running(Agent(tmp_path)) as agent:
        agent.start()
        agent.write("good.json", function("good", "def handler(context, event):\n    return 'ok'\n"))
        agent.write("bad.json", function("bad", "import os\nos._exit(3)\n"))
        wait_until(lambda: agent.status("bad").get("state") == "parked", within_s=30)
        assert "exit code 3" in agent.status("bad")["message"]
        assert "4 failures" in agent.status("bad")["message"]
        assert status_of(agent.serving("good")["triggers"]["web"]["address"]) == 200


DAEMONS = """
    import os, subprocess, sys, time
    def handler(context, event):
        first = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.write(write, str(os.getpid()).encode())
            os.close(write)
            time.sleep(1000)
        os.wait()
        return f"{first} {os.read(read, 100).decode()} {os.getpid()}"
"""


@pytest.mark.parametrize("nursery", ["true", "false"])
def test_daemons_that_a_worker_leaves_end_with_it(tmp_path: Path, nursery: str) -> None:
    """One became another program in a session of its own, one was only forked, twice."""
    with running(Agent(tmp_path)) as agent:
        agent.start(HEADRACE__SUPERVISOR__NURSERY=nursery)
        agent.write("f.json", function("f", DAEMONS))
        address = agent.serving("f")["triggers"]["web"]["address"]
        with urllib.request.urlopen(address, timeout=10) as answer:
            first, second, worker = map(int, answer.read().split())
        assert psutil.pid_exists(first) and psutil.pid_exists(second)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not running_process(first) and not running_process(second))
        # And nothing of them stays as a zombie.
        wait_until(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(second))


def running_process(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
