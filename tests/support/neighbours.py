"""A good function and one that does its worst beside it, under one agent: what the first feels of the second."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.agent import Agent
from tests.support.eventually import wait_until
from tests.support.load import require

GOOD = "def handler(context, event):\n    return 'hello'\n"

BAD = {
    "leaks": """
        kept = []
        def handler(context, event):
            while True:
                kept.append(bytearray(1 << 20))
    """,
    "forks without end": """
        import os
        def handler(context, event):
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    """,
    "fills its log": """
        def handler(context, event):
            while True:
                print("x" * 200)
                context.logger.info_with("y" * 200, z="z" * 200)
    """,
    "closes its descriptors": """
        import os, time
        def handler(context, event):
            os.closerange(0, 4096)
            while True:
                pass
    """,
    "scribbles over its channel": """
        import os, random
        def handler(context, event):
            with open("/dev/shm/" + os.environ["HEADRACE_CHANNEL"], "r+b") as segment:
                size = os.fstat(segment.fileno()).st_size
                for _ in range(100_000):
                    segment.seek(random.randrange(8, size - 64))
                    segment.write(random.randbytes(64))
    """,
    "writes files without end": """
        import os, tempfile
        def handler(context, event):
            with tempfile.TemporaryFile(dir="/dev/shm") as file:
                while True:
                    file.write(bytes(1 << 20))
    """,
}

LIMITS = {
    "eventTimeout": "500ms",
    "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}},
    "limits": {"processes": 30, "openFiles": 128, "fileSize": "16Mi"},
}


@dataclass(frozen=True)
class Seen:
    """What clients of the good function saw: answers a second, the 99th percentile in ms, and what went wrong."""

    rate: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Row:
    """One bad neighbour. `became` says what the agent counted of it."""

    bad: str
    before: Seen
    during: Seen
    became: str


def function(name: str, code: str, **spec: object) -> str:
    given = {
        "runtime": "python",
        "handler": "main:handler",
        "build": {"functionSourceCode": base64.b64encode(textwrap.dedent(code).encode()).decode()},
        "triggers": {"web": {"kind": "http", "attributes": {"port": 0}}},
    }
    return json.dumps({"metadata": {"name": name}, "spec": given | spec})


def compare(agent: Agent, bad: str, seconds: int) -> Row:
    """The good function alone, then beside `bad`, each for so many seconds. The agent runs and serves `good`."""
    address = agent.serving("good")["triggers"]["web"]["address"]
    pid = agent.status("good")["pid"]
    before = measure(address, seconds)
    agent.write("bad.json", function("bad", BAD[bad], **LIMITS))
    with provoked(agent.serving("bad")["triggers"]["web"]["address"]):
        during = measure(address, seconds)
        status = agent.status("bad")
    (agent.functions / "bad.json").unlink()
    wait_until(lambda: agent.status("bad") == {}, within_s=20)
    good = agent.status("good")
    assert (good["pid"], good["worker_restarts"], good["restarts"]) == (pid, 0, 0)
    return Row(bad, before, during, _became(status))


def measure(address: str, seconds: int) -> Seen:
    """Four connections, each asking again as soon as it is answered."""
    command = [require("wrk"), "-t1", "-c4", f"-d{seconds}s", "--latency", "--timeout", "5s", address]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Seen(
        rate=float((re.search(r"Requests/sec:\s+([\d.]+)", text) or ["", "0"])[1]),
        p99_ms=float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]] if p99 else float("inf"),
        errors=sum(map(int, errors.groups()) if errors else ()) + (int(refused[1]) if refused else 0),
    )


@contextlib.contextmanager
def provoked(address: str) -> Iterator[None]:
    """Somebody asks the bad function all the time, and does not mind what it answers."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                answer.read()
            stop.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


def _became(status: dict) -> str:
    limits = {name: item["hits"] for name, item in status.get("limits", {}).items() if item.get("hits")}
    results = status["triggers"]["web"].get("results", {})
    parts = [f"{count} {what}" for what, count in results.items()]
    parts += [f"{hits} x {name} limit" for name, hits in limits.items()]
    return ", ".join([*parts, f"{status.get('worker_restarts', 0)} workers replaced", status["state"]])


def table(rows: list[Row]) -> str:
    """For people, as Markdown."""
    lines = [
        "| Beside a function that | answers/s before | during | p99 before | during | errors | what became of it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.bad} | {row.before.rate:.0f} | {row.during.rate:.0f} | {row.before.p99_ms:.2f} ms "
            f"| {row.during.p99_ms:.2f} ms | {row.during.errors} | {row.became} |"
        )
    return "\n".join(lines)
