"""Drives doorbells.c: what it costs to wake the other side, whatever wakes it."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.bench.channel.c_program import built
from tests.bench.channel.peer import Unfit


def measure(rounds: int, busy_count: int, idle_count: int) -> list[dict[str, Any]]:
    """Rows: round trips of a pipe, an eventfd, a futex, back to back and with a millisecond of rest before each."""
    rows: list[dict[str, Any]] = []
    for case, count, pause_ns in (("busy", busy_count, 0), ("idle", idle_count, 1_000_000)):
        try:
            command = [str(built("doorbells.c")), str(count), str(pause_ns), str(rounds)]
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        except (Unfit, subprocess.SubprocessError) as error:
            rows.append({"case": case, "why_not": str(error)})
            continue
        for line in said.splitlines():
            name, *numbers = line.split()
            p50, p99, cpu = [round(int(number) / 1e3, 1) for number in numbers]
            rows.append({"case": case, "doorbell": name, "p50_us": p50, "p99_us": p99, "cpu_us": cpu})
    return rows
