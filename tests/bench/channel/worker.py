"""The channel through the real Python worker program around an empty handler: what the worker spends on an event.

Busy: events are always there.  Waiting: a millisecond of rest before each event (or each burst of `depth`).
The processor's side is a bare loop over its end of the channel; only the worker is measured.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from shmem import _channel
from tests.bench.channel import placement, syscalls
from tests.bench.channel.peer import Unfit
from tests.support.python_worker import PythonWorker

_HANDLER = 'def handler(context, event):\n    return ""\n'
_TEXTS = ("text/plain", "POST", "/", "", "", "", "", "", "", "http", "t")
_PAUSE_S = 0.001
_CASES = [(name, depth) for name in ("busy", "waiting") for depth in (1, 8)]


def measure(rounds: int, busy_count: int, waiting_count: int, traced_count: int) -> list[dict[str, Any]]:
    """Rows: events a second, microseconds of worker CPU and system calls an event, waiting and busy, depth 1 and 8."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text(_HANDLER)
        with PythonWorker(Path(folder)) as worker:
            worker.wait_ready()
            _move(worker, min(2000, busy_count), 8, 0.0)
            samples = [_sample(worker, busy_count, waiting_count) for _ in range(rounds)]
            for index, (name, depth) in enumerate(_CASES):
                rates, costs, sleeps = zip(*[one[index] for one in samples], strict=True)
                rows.append(
                    {
                        "case": name,
                        "depth": depth,
                        "events_per_s": round(statistics.median(rates)),
                        "worker_cpu_us": round(statistics.median(costs), 2),
                        "worker_sleeps": round(statistics.median(sleeps), 4),
                        "worker_calls": _calls(worker, traced_count, name, depth),
                    }
                )
    return rows


def _sample(worker: PythonWorker, busy_count: int, waiting_count: int) -> list[tuple[float, float, float]]:
    """Events a second, microseconds of CPU an event, and how often the worker slept an event, for each case."""
    found = []
    for name, depth in _CASES:
        count = busy_count if name == "busy" else waiting_count
        before, slept, began = _cpu_ns(worker.process.pid), _sleeps(worker.process.pid), time.perf_counter()
        _move(worker, count, depth, 0.0 if name == "busy" else _PAUSE_S)
        seconds = time.perf_counter() - began
        used, sleeps = _cpu_ns(worker.process.pid) - before, _sleeps(worker.process.pid) - slept
        found.append((count / seconds, used / count / 1e3, sleeps / count))
    return found


def _calls(worker: PythonWorker, count: int, name: str, depth: int) -> float | str:
    try:
        pids = os.getpid(), worker.process.pid
        # else a woken worker takes the core from the one that is about to put the next event
        with placement.on_two_cores(*pids), syscalls.counted(worker.process.pid) as calls:
            _move(worker, count, depth, 0.0 if name == "busy" else _PAUSE_S)
        return round(sum(calls.values()) / count, 3)
    except Unfit as error:
        return str(error)


def _move(worker: PythonWorker, count: int, depth: int, pause_s: float) -> None:
    """Send `count` events and take their replies. Busy: `depth` on their way at all times. Else: bursts of `depth`."""
    put, drain = worker.channel.put_event, worker.channel.drain
    sent = answered = 0
    while answered < count:
        if pause_s and sent == answered:
            time.sleep(pause_s)
        if not pause_s or sent == answered:
            while sent < count and sent - answered < depth:
                sent += 1
                put(sent, 0, 0, 0, -1, 0, _TEXTS, (), b"", b"")
        answered += sum(record[0] == _channel.REPLY for record in drain())


def _cpu_ns(pid: int) -> int:
    """Nanoseconds on a core so far, of the main thread (the worker has no other)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _sleeps(pid: int) -> int:
    """How often it has given its core away to wait for something."""
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) if found else 0
