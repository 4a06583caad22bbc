"""An agent of its own for a test: `headrace agent` as a process, with folders below a temporary one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.support.eventually import wait_until

FAKE = [sys.executable, str(Path(__file__).with_name("fake_processor.py"))]
ROOT = Path(__file__).parents[2]


class Agent:
    """`processor`: the command that starts processors, none for the real one. Short delays, so that tests are quick."""

    def __init__(self, folder: Path, processor: list[str] | None = None) -> None:
        self.functions, self.state, self.run = folder / "functions.d", folder / "state", folder / "run"
        self.functions.mkdir(exist_ok=True)
        self.log_file = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        supervision = {"restartDelay": "20ms", "drainMargin": "500ms", "crashLimit": 4}
        if processor:
            supervision["processorCommand"] = processor
        self.config = folder / "agent.yaml"
        self.config.write_text(json.dumps({"admin": {"port": 0}, "supervisor": supervision}))

    def command(self) -> list[str]:
        options = {"config": self.config, "functions-dir": self.functions, "state-dir": self.state, "run-dir": self.run}
        command = [sys.executable, "-m", "agent.cli.main", "agent"]
        return command + [word for name, path in options.items() for word in (f"--{name}", str(path))]

    def start(self, **environment: str) -> Agent:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                env={**os.environ, **environment},
            )
        wait_until(self._answers, within_s=20)
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        with contextlib.suppress(OSError, ValueError):
            return self.admin()["pid"] == self.process.pid and self.get("/livez")[0] == 200
        return False

    def admin(self) -> dict[str, Any]:
        return json.loads((self.run / "admin.json").read_text())

    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin()['port']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, name: str) -> dict[str, Any]:
        """Of one function; empty when there is none of that name."""
        return json.loads(self.get("/statistics")[1])["functions"].get(name, {})

    def serving(self, name: str) -> dict[str, Any]:
        """Its status, once it serves and all its triggers are up."""

        def probe() -> dict[str, Any] | None:
            status = self.status(name)
            up = status.get("state") == "serving" and all(item["up"] for item in status["triggers"].values())
            return status if up else None

        return wait_until(probe, within_s=20)

    def write(self, name: str, text: str) -> None:
        """As editors do: beside it, then renamed over it."""
        temporary = self.functions / f".{name}.tmp"
        temporary.write_text(text)
        temporary.rename(self.functions / name)

    def children(self) -> list[psutil.Process]:
        """What runs for functions: everything below the agent but its two nurseries."""
        assert self.process is not None
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if _name(process) not in ("headrace-wnurse", "headrace-pnurse")]

    def stop(self, number: int = signal.SIGTERM, within_s: float = 20) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@contextlib.contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    """Leaves no process, whatever happens in between."""
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            left = agent.children()
            try:
                agent.stop(within_s=5)
            except subprocess.TimeoutExpired:
                agent.stop(signal.SIGKILL)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def call(address: str) -> str:
    """The answer of a function."""
    with urllib.request.urlopen(address, timeout=5) as answer:
        return answer.read().decode()
