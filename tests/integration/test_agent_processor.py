"""The agent with real processors and workers: drop-in to answer, swap under load, kills, and what they leave."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.agent import Agent, call, running
from tests.support.eventually import wait_until

HANDLER = """
import os
def handler(context, event):
    return "ANSWER " + str(os.getpid())
"""


def function(name: str, answer: str = "one", port: int = 0, **spec: object) -> str:
    code = base64.b64encode(HANDLER.replace("ANSWER", answer).encode()).decode()
    web = {"kind": "http", "numWorkers": 2, "attributes": {"port": port}}
    given = {
        "runtime": "python",
        "handler": "main:handler",
        "build": {"functionSourceCode": code},
        "triggers": {"web": web},
    }
    return json.dumps({"metadata": {"name": name}, "spec": given | spec})


def segments(agent: Agent) -> set[str]:
    """Shared memory of this agent's processors; other tests may run beside."""
    owners = {str(process.pid) for process in agent.children()}
    return {path.name for path in Path("/dev/shm").glob("headrace-*") if path.name.split("-")[1] in owners}


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.fixture
def agent(tmp_path):
    with running(Agent(tmp_path)) as agent:
        yield agent


class Load:
    """Clients that ask all the time on kept connections, and count what went wrong."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.answered = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status != 200:
                    self.wrong.append(f"{answer.status} {text}")
                self.answered += 1
                if answer.getheader("Connection", "").lower() == "close":
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
                connection.close()
        connection.close()

    @contextlib.contextmanager
    def on(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def test_drop_in_answers_and_leaves_nothing_when_removed(agent):
    agent.start()
    agent.write("blink.yaml", function("blink"))
    status = agent.serving("blink")
    url = status["triggers"]["web"]["address"]
    assert call(url).startswith("one ")
    processes = agent.children()
    names = segments(agent)
    assert len(processes) == 3 and len(names) >= 2
    (agent.functions / "blink.yaml").unlink()
    wait_until(lambda: agent.status("blink") == {})
    assert gone(processes)
    assert not any(Path("/dev/shm", name).exists() for name in names)
    with pytest.raises(OSError):
        call(url)


def test_swap_under_load_fails_no_request(agent):
    agent.write("blink.yaml", function("blink", "v0"))
    agent.start()
    url = agent.serving("blink")["triggers"]["web"]["address"]
    with Load(int(url.rpartition(":")[2])).on() as load:
        for number in range(1, 4):
            agent.write("blink.yaml", function("blink", f"v{number}"))
            wait_until(lambda number=number: call(url).startswith(f"v{number} "), within_s=20)
        before = load.answered
        wait_until(lambda: load.answered > before)
    assert load.wrong == []


def test_function_that_cannot_be_imported_leaves_the_old_version(agent):
    agent.write("blink.yaml", function("blink"))
    agent.start()
    url = agent.serving("blink")["triggers"]["web"]["address"]
    bad = base64.b64encode(b"import nothing_of_that_name\n").decode()
    agent.write("blink.yaml", function("blink", build={"functionSourceCode": bad}))
    message = wait_until(lambda: agent.status("blink")["message"], within_s=20)
    assert "nothing_of_that_name" in message
    assert call(url).startswith("one ")


def test_killed_processor_is_back(agent):
    agent.write("blink.yaml", function("blink"))
    agent.start()
    status = agent.serving("blink")
    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: agent.status("blink").get("pid") not in (0, status["pid"]))
    assert call(status["triggers"]["web"]["address"]).startswith("one ")


def test_killed_agent_leaves_nothing_and_every_function_is_back(agent):
    for name in ("a", "b"):
        agent.write(f"{name}.yaml", function(name, name))
    agent.start()
    urls = {name: agent.serving(name)["triggers"]["web"]["address"] for name in ("a", "b")}
    processes, names = agent.children(), segments(agent)
    assert len(processes) == 6
    agent.stop(signal.SIGKILL)
    agent.start()
    assert gone(processes)
    assert not any(Path("/dev/shm", name).exists() for name in names)
    for name, url in urls.items():
        assert agent.serving(name)["triggers"]["web"]["address"] == url
        assert call(url).startswith(f"{name} ")


def test_everything_killed_at_once_is_swept_at_the_next_start(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    agent.serving("a")
    processes, names = agent.children(), segments(agent)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    for process in processes:
        process.kill()
    agent.stop(signal.SIGKILL)
    wait_until(lambda: not any(process.is_running() for process in processes), within_s=30)  # init may be slow
    assert names
    agent.start()
    assert not any(Path("/dev/shm", name).exists() for name in names)
    agent.serving("a")


def test_stop_under_load_drains(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    url = agent.serving("a")["triggers"]["web"]["address"]
    processes, names = agent.children(), segments(agent)
    with Load(int(url.rpartition(":")[2])).on() as load:
        wait_until(lambda: load.answered > 50)
        assert agent.stop() == 0
    # Refused after the end is right; a time-out is not.
    assert not [
        item for item in load.wrong if not item.startswith(("ConnectionRefused", "ConnectionReset", "RemoteDis"))
    ]
    assert gone(processes)
    assert not any(Path("/dev/shm", name).exists() for name in names)


def test_a_worker_started_again_finds_the_code_of_its_version(tmp_path: Path) -> None:
    """The edit is broken, so the old version serves on; when its worker dies, the next must not load the edit."""
    with running(Agent(tmp_path).start()) as agent:
        folder = agent.functions / "steady"
        folder.mkdir()
        (folder / "main.py").write_text("def handler(context, event):\n    return 'first'\n")
        (folder / "function.yaml").write_text(
            "metadata: {name: steady}\nspec: {runtime: python, handler: 'main:handler'}\n"
        )
        address = agent.serving("steady")["triggers"]["default-http"]["address"]
        (folder / "main.py").write_text("def handler(:\n")
        wait_until(lambda: "main.py" in agent.status("steady")["message"])
        (worker,) = agent.status("steady")["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda: agent.status("steady")["workers"][0]["pid"] not in (0, worker["pid"]))
        assert call(address) == "first"
