"""The figures as tables, for the terminal and for docs/CHANNEL-BENCHMARKS.md, and two runs side by side."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.channel import registry

PAGE = Path("docs/CHANNEL-BENCHMARKS.md")
BEGIN, END = "<!-- figures: make bench-channel writes below -->", "<!-- end of figures -->"
_OURS = "headrace"
_QUOTED = 128  # the size whose latencies are shown for every peer
_SIZES = {0: "0 B", 128: "128 B", 4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
    }


def text(figures: dict[str, Any]) -> str:
    """All tables."""
    about = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    load = f"load average {figures['load_before']} before, {figures['load_after']} after; {figures['took_s']} s"
    parts = [f"`{figures['command']}`: {about}; {load}."]
    rows = figures["rows"]
    if rows:
        parts += [_one_way(rows), _trips(rows), _costs(rows), _reasons(rows)]
    if "worker" in figures:
        parts.append(_worker(figures["worker"]))
    if "doorbells" in figures:
        parts.append(_doorbells(figures["doorbells"]))
    return "\n\n".join(part for part in parts if part)


def write(figures: str) -> None:
    """Replace the figures in the page, leave its words."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}")


def compare(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Every figure that both runs have, and the second as a multiple of the first."""
    before, after = dict(_flat(first)), dict(_flat(second))
    lines = [
        f"{name:60} {before[name]:>12g} {after[name]:>12g} {after[name] / before[name]:>8.2f}"
        for name in before
        if name in after and before[name]
    ]
    return "\n".join([f"{'':60} {'first':>12} {'second':>12} {'ratio':>8}", *lines])


def _flat(figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for row in figures["rows"]:
        yield from _numbers(f"{row['peer']} {row['size']}", row)
    for row in figures.get("worker", []):
        yield from _numbers(f"worker {row['case']} depth {row['depth']}", row)
    for row in figures.get("doorbells", []):
        yield from _numbers(f"doorbell {row.get('doorbell')} {row['case']}", row)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("size", "depth", "count", "rounds"):
                yield from _numbers(f"{name} {key}", inner)
    elif isinstance(value, int | float):
        yield name, float(value)


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def _names(rows: list[dict[str, Any]]) -> list[str]:
    present = {row["peer"] for row in rows}
    return [entry.name for entry in registry.PEERS if entry.name in present]


def _cell(rows: list[dict[str, Any]], peer: str, size: int) -> dict[str, Any]:
    return next((row for row in rows if row["peer"] == peer and row["size"] == size), {})


def _one_way(rows: list[dict[str, Any]]) -> str:
    ours = _cell(rows, _OURS, _QUOTED).get("one_way", {}).get("per_s")
    head = ["One way: thousand messages/s (MB/s)", *_SIZES.values(), "headrace / peer, 128 B"]
    lines = []
    for peer in _names(rows):
        cells = []
        for size in _SIZES:
            found = _cell(rows, peer, size).get("one_way")
            cells.append(_rate(found, size) if found else "")
        quoted = _cell(rows, peer, _QUOTED).get("one_way")
        cells.append(f"{ours / quoted['per_s']:.1f}" if ours and quoted else "")
        lines.append([peer, *cells])
    return _table(head, lines)


def _rate(found: dict[str, Any], size: int) -> str:
    thousands = found["per_s"] / 1e3
    shown = f"{thousands:,.0f}" if thousands >= 100 else f"{thousands:.1f}"
    return f"{shown} ({found['mb_per_s']:,.0f})" if size >= 4096 else shown


def _trips(rows: list[dict[str, Any]]) -> str:
    columns = {
        "idle, 128 B": (_QUOTED, "idle"),
        "busy on one core, 128 B": (_QUOTED, "busy_one_core"),
        "busy on two cores, 128 B": (_QUOTED, "busy_two_cores"),
        "idle, 64 KiB": (65536, "idle"),
        "busy, 64 KiB": (65536, "busy"),
    }
    head = ["Round trip, us: p50 / p99 / p99.9", *columns]
    lines = []
    for peer in _names(rows):
        cells = [_trip(_cell(rows, peer, size).get(kind)) for size, kind in columns.values()]
        if any(cells):
            lines.append([peer, *cells])
    return _table(head, lines)


def _trip(found: dict[str, Any] | None) -> str:
    return f"{found['p50_us']:g} / {found['p99_us']:g} / {found['p99_9_us']:g}" if found else ""


def _costs(rows: list[dict[str, Any]]) -> str:
    head = [
        "Near + far, 128 B",
        "calls a message, one way",
        "calls a round trip, busy",
        "calls a round trip, idle",
        "CPU us a message at 1,000/s",
        "switches a message at 1,000/s",
    ]
    lines = []
    for peer in _names(rows):
        row = _cell(rows, peer, _QUOTED)
        paced, calls = row.get("paced"), row.get("calls", {})
        if paced:
            cells = [_sum(calls.get(name), "near", "far") for name in ("one_way", "busy", "idle")]
            lines.append([peer, *cells, _sum(paced, "near_cpu_us", "far_cpu_us"), f"{paced['switches']:g}"])
    return _table(head, lines)


def _sum(found: dict[str, float] | None, near: str, far: str) -> str:
    return f"{found[near]:g} + {found[far]:g}" if found else ""


def _reasons(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"- {row['peer']}, {_SIZES[row['size']]}, {what}: {why}"
        for row in rows
        for what, why in row.get("why_not", {}).items()
    ]
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def _worker(rows: list[dict[str, Any]]) -> str:
    head = ["Real worker, empty handler", "events/s", "worker CPU us an event"]
    head += ["sleeps an event", "system calls an event, own core, traced"]
    lines = []
    for row in rows:
        case, numbers = f"{row['case']}, depth {row['depth']}", (row["worker_sleeps"], row["worker_calls"])
        lines.append([case, f"{row['events_per_s']:,}", f"{row['worker_cpu_us']:g}", *map(str, numbers)])
    return _table(head, lines)


def _doorbells(rows: list[dict[str, Any]]) -> str:
    head = ["Doorbell alone, round trip", "p50 us", "p99 us", "CPU us, both sides"]
    lines = []
    for row in rows:
        if "why_not" in row:
            lines.append([row["case"], row["why_not"], "", ""])
        else:
            name = f"{row['doorbell']}, {row['case']}"
            lines.append([name, f"{row['p50_us']:g}", f"{row['p99_us']:g}", f"{row['cpu_us']:g}"])
    return _table(head, lines)
