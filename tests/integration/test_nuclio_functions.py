"""Functions written for nuclio, from their folders, with `headrace run` and nothing changed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import wait_until

ROOT = Path(__file__).parents[2]
FUNCTIONS = ROOT / "configs" / "nuclio"


class Running:
    """One function in a process of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log

    def ask(
        self, body: bytes | str = b"", method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, HTTPResponse]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, "/", body if method == "POST" else None, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response
        finally:
            connection.close()

    def state(self) -> Any:
        return json.loads(self.ask(method="GET")[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    """Starts a function of configs/nuclio on a free port; they find each other; all are ended with SIGINT."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(name: str) -> Running:
        log = tmp_path / f"{name}.log"
        command = [sys.executable, "-m", "agent.cli.main", "run", str(FUNCTIONS / name), "--port", "0"]
        command += ["--calls-dir", str(tmp_path / "calls")]
        with log.open("wb") as output:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output))
        found = wait_until(lambda: re.search(r"address=http://127\.0\.0\.1:(\d+)", log.read_text()), within_s=30)
        return Running(int(found[1]), log)

    yield run
    for process in processes:
        process.send_signal(signal.SIGINT)
    codes = [process.wait(20) for process in processes]
    assert codes == [0] * len(codes)


def test_settings_in_a_comment(start: Callable[[str], Running]) -> None:
    reverser = start("reverser")
    assert reverser.ask("hello")[:2] == (200, b"olleh")
    assert reverser.ask(b"\xff\xfe")[:2] == (400, b"only text can be reversed")
    assert "workers=2" in reverser.log.read_text()


def test_an_async_handler_whose_task_goes_on_between_events(start: Callable[[str], Running]) -> None:
    averager = start("averager")
    assert averager.state() == {"count": 0, "average": None}
    for reading in (10, 20, 60):
        assert averager.ask(str(reading))[:2] == (202, b"taken")
    wait_until(lambda: averager.state() == {"count": 3, "average": 30.0})
    status, body, _ = averager.ask("warm")
    assert status == 500
    assert b"could not convert string to float" in body


def test_a_response_with_headers_and_status(start: Callable[[str], Running]) -> None:
    checker = start("checker")
    headers = {"Content-Type": "application/json", "X-Request": "7", "X-Nuclio-Log-Level": "info"}
    status, body, response = checker.ask(json.dumps({"sensor": "a", "celsius": 21}), headers=headers)
    assert (status, json.loads(body)) == (200, {"accepted": True, "faults": []})
    assert response.getheader("Content-Type") == "application/json"
    assert (response.getheader("X-Faults"), response.getheader("X-Request")) == ("0", "7")
    (record,) = json.loads(response.getheader("X-Nuclio-Logs") or "[]")
    assert (record["level"], record["message"], record["celsius"]) == ("info", "accepted a reading", 21)
    status, body, response = checker.ask(json.dumps({"sensor": "a", "celsius": 5000}), headers=headers)
    assert (status, response.getheader("X-Faults")) == (422, "1")
    assert json.loads(body)["faults"] == ["celsius is out of range"]
    assert checker.ask("warm")[0] == 422


def test_batches_answered_one_by_one(start: Callable[[str], Running]) -> None:
    batcher = start("batcher")
    with ThreadPoolExecutor(8) as threads:
        answers = [json.loads(body) for _, body, _ in threads.map(batcher.ask, map(str, range(8)))]
    assert [answer["number"] for answer in answers] == list(range(8))
    assert max(answer["of"] for answer in answers) > 1
    assert all(1 <= answer["rank"] <= answer["of"] <= 4 for answer in answers)
    status, body, _ = batcher.ask("5")
    assert (status, json.loads(body)) == (200, {"rank": 1, "of": 1, "number": 5.0})


def test_cron_env_embedded_source_and_a_shared_worker(start: Callable[[str], Running]) -> None:
    beats = start("beats")
    wait_until(lambda: beats.state()["beats"] >= 3)
    state = beats.state()
    assert (state["words"], state["greeting"]) == (["tick"], "good morning")


def test_one_function_calls_another(start: Callable[[str], Running]) -> None:
    caller = start("caller")
    assert caller.ask("hello")[0] == 500  # there is nobody to call yet
    start("reverser")
    status, body, _ = caller.ask("hello")
    assert (status, json.loads(body)) == (200, {"sent": "HELLO", "received": "OLLEH"})
    status, body, _ = caller.ask("")
    assert status == 500
    assert b"nothing to reverse" in body
