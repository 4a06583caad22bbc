"""`make bench`: every figure of docs/BENCHMARKS.md in one run on one machine, as ratios against peers.

    python -m tests.bench [--only http,mqtt,footprint,worker] [--rounds 3] [--quick] [--json FILE] [--write]

Nothing here is asserted. `--write` puts the figures into docs/BENCHMARKS.md with machine, commit and command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import footprint, http_function, mqtt_function, worker_overhead

PAGE = Path("docs/BENCHMARKS.md")
BEGIN, END = "<!-- figures: make bench writes below -->", "<!-- end of figures -->"


def main() -> None:
    """Run the chosen sections one after the other, print them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="http,mqtt,footprint,worker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="shorter runs: to see that it works, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "command": " ".join(["python -m tests.bench", *sys.argv[1:]])}
    sections = {
        "http": lambda: http_function.bench(given.rounds, 2 if given.quick else 5),
        "mqtt": lambda: mqtt_function.bench(given.rounds, 5_000 if given.quick else 40_000),
        "footprint": lambda: footprint.bench(3 if given.quick else 10, 5 if given.quick else 60),
        "worker": lambda: [
            worker_overhead.measure(name, 20_000 if given.quick else 200_000, b"", True)
            for name in ("plain", "dict", "async", "log")
        ],
    }
    for name in given.only.split(","):
        figures[name] = sections[name]()
        print(json.dumps({name: figures[name]}, indent=2), flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if given.write:
        write(figures)


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


def write(figures: dict[str, Any]) -> None:
    """Replace the figures in the page, leave its words."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    block = f"{BEGIN}\n\n```json\n{json.dumps(figures, indent=2)}\n```\n\n{END}"
    PAGE.write_text(before + block + after)


if __name__ == "__main__":
    main()
