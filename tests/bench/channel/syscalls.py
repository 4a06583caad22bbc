"""System calls a message, counted by strace on both processes while they do a short stretch of work.

A traced process is slow, so this is a pass of its own and its times are not used. What it does to the counts: a side
that is slowed sleeps or wakes at other moments, so figures under load are rough, those of idle processes are exact.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.channel.peer import Unfit


@contextlib.contextmanager
def counted(pid: int) -> Iterator[dict[str, int]]:
    """Calls of process `pid` and its threads inside the block, by name; filled in when the block is left."""
    if shutil.which("strace") is None:
        raise Unfit("no strace")
    calls: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "calls")
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", str(report), "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        try:
            if "attached" not in said:
                raise Unfit(f"strace: {said.strip()}")
            yield calls
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
        calls.update(_read(report.read_text()))


def per_message(near_pid: int, far_pid: int, work: Callable[[], object], count: int, own: int = 0) -> dict[str, float]:
    """Calls a message of each side while `work` moves `count`; `own` calls of the near side are the benchmark's."""
    with counted(near_pid) as near, counted(far_pid) as far:
        work()
    return {
        "near": round(max(0, sum(near.values()) - own) / count, 2),
        "far": round(sum(far.values()) / count, 2),
    }


def _read(report: str) -> dict[str, int]:
    """The rows of `strace -c`: share, seconds, microseconds a call, calls, perhaps errors, name."""
    rows = [line.split() for line in report.splitlines()]
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}
