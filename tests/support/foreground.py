"""`headrace run` in a process of its own, a function that notes down what it is given: for tests that interrupt it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.support.c_program import ROOT
from tests.support.eventually import wait_until

CODE = """
import json, os, time

def handler(context, event):
    if event.body == b"state":
        return json.dumps({"pid": os.getpid(), "clock": time.time()})
    with open("handled", "a") as handled:
        handled.write(event.body.decode() + "\\n")
    return event.body
"""
FUNCTION = """
metadata: {name: remember}
spec:
  runtime: python
  handler: main:handler
  triggers:
    web: {kind: http, numWorkers: 1, workerAvailabilityTimeoutMilliseconds: 200000}
"""
SENDERS = 8


class Foreground:
    """`process` is the processor, `worker_pid` its first worker. Numbers are sent one a request, several at once."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, handled: Path) -> None:
        self.process = process
        self.port = port
        self._handled = handled
        self._senders = ThreadPoolExecutor(SENDERS)
        self._date = ""
        self._sent: list[tuple[int, Future[bytes]]] = []
        self.worker_pid = self.worker()

    def clocks(self) -> tuple[float, float]:
        """What time it is for the processor (by its Date header) and for the worker, in seconds since 1970."""
        worker = float(self._state()["clock"])
        return parsedate_to_datetime(self._date).timestamp(), worker

    def ask(self, body: bytes) -> bytes:
        """The reply to one event. Raises AssertionError when it is no 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=200)
        try:
            connection.request("POST", "/", body)
            response = connection.getresponse()
            text = response.read()
            self._date = response.getheader("Date") or ""
            assert response.status == 200, (response.status, text)
            return text
        finally:
            connection.close()

    def worker(self) -> int:
        """Process id of the worker that is there now."""
        return int(self._state()["pid"])

    def _state(self) -> Any:
        return json.loads(self.ask(b"state"))

    def send(self, count: int) -> None:
        """Send that many more numbers; returns at once."""
        for number in range(len(self._sent), len(self._sent) + count):
            self._sent.append((number, self._senders.submit(self.ask, b"%d" % number)))

    @property
    def answered(self) -> int:
        """Requests that have their reply."""
        return sum(reply.done() for _, reply in self._sent)

    def replies(self) -> list[str]:
        """What came for each request so far, for a test's message."""
        return [repr(reply.exception() or reply.result()) for _, reply in self._sent if reply.done()]

    def check(self, same_worker: bool = True) -> None:
        """Wait until everything is answered: rightly, handled once each, and by the worker that was there at first."""
        for number, reply in self._sent:
            assert reply.result(timeout=100) == b"%d" % number
        handled = sorted(int(line) for line in self._handled.read_text().splitlines())
        assert handled == list(range(len(self._sent)))
        assert not same_worker or self._state()["pid"] == self.worker_pid

    def close(self) -> None:
        """Wait for the senders."""
        self._senders.shutdown(cancel_futures=True)


@contextlib.contextmanager
def foreground(folder: Path, environment: dict[str, str] | None = None) -> Iterator[Foreground]:
    """Start the function, `environment` for both sides; it is ended with SIGINT and must leave with 0."""
    source, log = folder / "remember", folder / "run.log"
    source.mkdir()
    (source / "handled").touch()
    (source / "main.py").write_text(textwrap.dedent(CODE))
    # a worker gets what its function's spec says, and little of ours
    variables = [{"name": name, "value": value} for name, value in (environment or {}).items()]
    (source / "function.yaml").write_text(FUNCTION + f"  env: {json.dumps(variables)}\n")
    command = [sys.executable, "-m", "agent.cli.main", "run", str(source), "--port", "0"]
    command += ["--calls-dir", str(folder / "calls")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=os.environ | (environment or {})
        )
    try:
        found = wait_until(lambda: re.search(r"address=http://127\.0\.0\.1:(\d+)", log.read_text()), within_s=30)
        running = Foreground(process, int(found[1]), source / "handled")
        yield running
        running.close()
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        try:
            code: int | None = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    assert code == 0, log.read_text()
