"""The bare HTTP listener against uvicorn's bare hello: what the front door costs before any worker is behind it.

    python -m tests.bench.http_listener [--seconds 5] [--connections 32] [--port 18080] [--rounds 3]

Each server runs alone in its own process on uvloop, wrk beside it on the same machine; rounds alternate, the best of
each is shown. The listener's sink answers one turn of the loop later, as the contract asks; uvicorn's app says hello.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.model.event import Event, Outcome, Result

HELLO = b"hello"


class AnsweringSink:
    """Answers everything in the next turn of the loop, all of it in one call, as a dispatcher reading a ring does."""

    def __init__(self) -> None:
        from loguru import logger

        self.name, self.function, self.log = "http", "bench", logger
        self.state_dir = Path(tempfile.gettempdir())
        self.listeners: list[Any] = []
        self._waiting: list[Callable[[Outcome], None]] = []
        self._loop = asyncio.get_running_loop()

    def dispatch(self, event: Event, done: Callable[[Outcome], None]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._answer)
        self._waiting.append(done)

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(Outcome(Result.REPLIED, 200, "text/plain", [], HELLO))

    async def drained(self) -> None: ...
    def count(self, what: str, n: int = 1) -> None: ...
    def up(self, address: str = "") -> None: ...
    def release(self) -> None: ...


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application that is compared against."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HELLO})


def serve_headrace(port: int) -> None:
    import uvloop

    from agent.triggers.http.spec import HttpSpec
    from agent.triggers.http.trigger import run

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
        with contextlib.suppress(asyncio.CancelledError):
            await run(HttpSpec(kind="http", port=port), AnsweringSink())  # type: ignore[arg-type]

    uvloop.run(main())


def serve_uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(hello, port=port, log_level="error", access_log=False, loop="uvloop", http="httptools", lifespan="off")


@contextlib.contextmanager
def server(which: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.http_listener", "--serve", which, "--port", str(port)]
    )
    try:
        wait_for(port)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server did not come up")


def measure(port: int, seconds: int, connections: int) -> tuple[float, str]:
    """Requests per second, and what wrk says about errors."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    errors = re.search(r"(Socket errors|Non-2xx).*", output)
    assert rate is not None
    return float(rate[1]), errors[0] if errors else ""


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    import psutil

    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=["headrace", "uvicorn"])
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.serve:
        {"headrace": serve_headrace, "uvicorn": serve_uvicorn}[given.serve](given.port)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    best: dict[str, tuple[float, float]] = {}
    for _ in range(given.rounds):
        for which in ("uvicorn", "headrace"):
            with server(which, given.port) as process:
                before = cpu_seconds(process)
                rate, errors = measure(given.port, given.seconds, given.connections)
                cost_us = (cpu_seconds(process) - before) / (rate * given.seconds) * 1e6
            print(f"{which:10}{rate:10.0f} requests/s {cost_us:8.1f} us of server CPU a request  {errors}", flush=True)
            best[which] = max(best.get(which, (0.0, 0.0)), (rate, cost_us))
    ratio = best["headrace"][0] / best["uvicorn"][0]
    print(f"best: headrace {best['headrace'][0]:.0f}/s, uvicorn {best['uvicorn'][0]:.0f}/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
