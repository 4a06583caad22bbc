"""`make bench-channel`: the channel against what else a Python user could pick, in one run on one machine.

    python -m tests.bench.channel [--only NAMES] [--rounds N] [--quick] [--json FILE] [--write]
    python -m tests.bench.channel --show A.json [--write]
    python -m tests.bench.channel --compare A.json B.json

NAMES, separated by commas: rows of registry.py, and the sections `peers`, `spin`, `worker`, `doorbells`.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from shmem import segment
from tests.bench.channel import doorbells, registry, report, run, worker

SECTIONS = ("peers", "spin", "worker", "doorbells")


def main() -> None:
    given = _arguments()
    if given.compare:
        print(report.compare(*[json.loads(path.read_text()) for path in given.compare]))
        return
    names = given.only.split(",")
    known = [*SECTIONS, *[entry.name for entry in registry.PEERS]]
    if strangers := [name for name in names if name not in known]:
        sys.exit(f"--only: no {', '.join(strangers)}; there are {', '.join(known)}")
    figures = json.loads(given.show.read_text()) if given.show else measure(names, given)
    text = report.text(figures)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    if given.write:
        report.write(text)


def measure(names: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, with the machine it was measured on and how busy that was."""
    lengths = run.QUICK if given.quick else run.Lengths()
    if given.rounds:
        lengths = dataclasses.replace(lengths, rounds=given.rounds)
    began, load = time.monotonic(), os.getloadavg()
    entries = [entry for entry in registry.PEERS if entry.name in names or entry.group in names]
    figures: dict[str, Any] = {
        "machine": report.machine(),
        "command": " ".join(["python -m tests.bench.channel", *sys.argv[1:]]),
        "load_before": round(load[0], 2),
        "rows": run.measure(entries, registry.SIZES, lengths),
    }
    if "worker" in names:
        counts = (2000, 50, 200) if given.quick else (100_000, 1000, 2000)
        figures["worker"] = worker.measure(lengths.rounds, *counts)
    if "doorbells" in names:
        figures["doorbells"] = doorbells.measure(lengths.rounds, *(300, 20) if given.quick else (20_000, 300))
    figures["load_after"] = round(os.getloadavg()[0], 2)
    figures["took_s"] = round(time.monotonic() - began)
    segment.sweep()
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {report.PAGE}")
    parser.add_argument("--show", type=Path, metavar="FILE", help="the tables of an earlier run")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
