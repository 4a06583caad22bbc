"""Bytes that a processor writes to the disk for each event, by /proc/PID/io, with a journal and without.

    python -m tests.bench.delivery_disk [--seconds 60]

`write_bytes` counts whole pages of 4 KiB that the process has made dirty, as often as they are written between two
syncs. What the file system writes for itself (its own journal) is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.processor import running

HANDLER = "def handler(context, event):\n    return ''\n"


def written() -> int:
    """By this process, so far."""
    found = re.search(r"^write_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.M)
    assert found
    return int(found[1])


async def measure(size: int, rate: float, seconds: float, **keys: Any) -> dict[str, Any]:
    """Deliver `rate` events a second of `size` bytes."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with running(Path(folder), HANDLER, **keys) as f:
            await f.sink.room()
            await f.call(bytes(size), deliver=True)
            await asyncio.sleep(2)
            before, begun = written(), time.monotonic()
            count = 0
            while (now := time.monotonic()) < begun + seconds:
                f.start(bytes(size), deliver=True, topic="sensors/boiler", headers=[("id", str(count))])
                count += 1
                await asyncio.sleep(max(0.0, begun + count / rate - now))
            await asyncio.sleep(1.5)
            total = written() - before
    return {
        "size": size,
        "rate": rate,
        "events": count,
        "per_event": round(total / count),
        "ratio": round(total / count / size, 2),
    }


async def main(seconds: float) -> None:
    """One line of JSON a case."""
    window = {"minFreeBytes": 0, "minFreePercent": 0}
    cases: dict[str, tuple[float, dict[str, Any]]] = {
        "none": (10, {"delivery": "at-least-once"}),
        "1s": (10, {"journal": window | {"commitWindow": "1s"}}),
        "100ms": (10, {"journal": window | {"commitWindow": "100ms"}}),
        "10ms": (10, {"journal": window | {"commitWindow": "10ms"}}),
        "10ms, 500/s": (500, {"journal": window | {"commitWindow": "10ms"}}),
        "1s and ids": (
            10,
            {"journal": window | {"commitWindow": "1s"}, "delivery": "effectively-once", "idFrom": "header:id"},
        ),
    }
    for name, (rate, keys) in cases.items():
        for size in (128, 300, 1024, 8192):
            print(json.dumps({"journal": name} | await measure(size, rate, seconds, **keys)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    asyncio.run(main(parser.parse_args().seconds))
