"""What the Python worker costs around an empty handler: events a second, CPU and system calls an event.

`python -m tests.bench.worker_overhead [--handler plain|dict|async|headers] [--events N] [--strace]`
The processor's side is a bare loop over its end of the channel in this process, on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from runtimes.python import runtime
from shmem import _channel
from tests.support.python_worker import PythonWorker

HANDLERS = {
    "plain": 'def handler(context, event):\n    return ""\n',
    "dict": 'def handler(context, event):\n    return {"value": 1, "name": "lamp"}\n',
    "response": 'def handler(context, event):\n    return context.Response(body="x", status_code=201)\n',
    "headers": 'def handler(context, event):\n    return event.headers["X-Name"] + event.method + event.path\n',
    "body": "def handler(context, event):\n    return event.body\n",
    "log": 'def handler(context, event):\n    context.logger.info_with("seen", size=event.size)\n    return ""\n',
    "async": 'async def handler(context, event):\n    return ""\n',
}
DEPTH = 8  # events in the worker's ring at once


def pump(worker: PythonWorker, events: int, body: bytes) -> float:
    """Seconds for `events` events, DEPTH of them on their way."""
    channel = worker.channel
    texts = ("text/plain", "POST", "/a", "", "", "", "", "", "", "http", "t")
    headers = (("Host", "localhost"), ("x-name", "lamp"))
    sent = answered = 0
    begin = time.perf_counter()
    while answered < events:
        while sent < events and sent - answered < DEPTH:
            if not channel.put_event(sent + 1, 0, 0, 0, -1, 0, texts, headers, b"", body):
                break
            sent += 1
        for record in channel.drain():
            answered += record[0] == _channel.REPLY
    return time.perf_counter() - begin


def system_calls(worker: PythonWorker, events: int, body: bytes) -> int:
    """System calls of the worker for `events` events."""
    with tempfile.NamedTemporaryFile("r") as report:
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", report.name, "-p", str(worker.process.pid)], stderr=subprocess.PIPE
        )
        assert tracer.stderr is not None
        tracer.stderr.readline()  # "attached"
        pump(worker, events, body)
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()
        total = [line for line in report.read().splitlines() if line.endswith("total")]
    return int(total[0].split()[3]) if total else 0


def measure(name: str, events: int, body: bytes, strace: bool) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text(HANDLERS[name])
        with PythonWorker(Path(folder)) as worker:
            worker.wait_ready()
            pump(worker, 2000, body)
            process = psutil.Process(worker.process.pid)
            before = process.cpu_times()
            seconds = pump(worker, events, body)
            after = process.cpu_times()
            used = after.user + after.system - before.user - before.system
            result: dict[str, float | str] = {
                "handler": name,
                "body_bytes": len(body),
                "events_per_s": round(events / seconds),
                "worker_cpu_us_per_event": round(used / events * 1e6, 2),
                "pss_kb": round(process.memory_full_info().pss / 1024),
            }
            if strace and shutil.which("strace"):
                result["system_calls_per_event"] = round(system_calls(worker, events, body) / events, 4)
            return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handler", choices=[*HANDLERS, "all"], default="all")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--body-bytes", type=int, default=0)
    parser.add_argument("--strace", action="store_true")
    given = parser.parse_args()
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, {runtime.WORKER.name}", file=sys.stderr)
    for name in HANDLERS if given.handler == "all" else [given.handler]:
        print(json.dumps(measure(name, given.events, b"x" * given.body_bytes, given.strace)), flush=True)


if __name__ == "__main__":
    main()
