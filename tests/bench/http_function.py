"""HTTP to a Python handler in a worker, against uvicorn's in-process hello and our bare listener, in one run."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.http_listener import measure, server, wait_for

HANDLER = 'def handler(context, event):\n    return "hello"\n'
PORT = 18085


@contextlib.contextmanager
def function(port: int) -> Iterator[None]:
    """`headrace run` with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "hello.py")
        path.write_text(HANDLER)
        command = [sys.executable, "-m", "agent.cli.main", "run", str(path), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield
        finally:
            process.terminate()
            process.wait(20)


def bench(rounds: int, seconds: int) -> dict[str, Any]:
    """Medians of requests a second; rounds alternate, so that a machine whose speed drifts drifts for all."""
    rates: dict[str, list[float]] = {"uvicorn": [], "listener": [], "function": [], "function_1_connection": []}
    errors: list[str] = []
    for _ in range(rounds):
        for name, context in (
            ("uvicorn", server("uvicorn", PORT)),
            ("listener", server("headrace", PORT)),
            ("function", function(PORT)),
        ):
            with context:
                rate, error = measure(PORT, seconds, 32)
                rates[name].append(rate)
                errors += [f"{name}: {error}"] if error else []
                if name == "function":
                    rates["function_1_connection"].append(measure(PORT, seconds, 1)[0])
    median = {name: round(statistics.median(values)) for name, values in rates.items()}
    return {
        "requests_per_s": median,
        "function_to_uvicorn": round(median["function"] / median["uvicorn"], 2),
        "function_to_listener": round(median["function"] / median["listener"], 2),
        "listener_to_uvicorn": round(median["listener"] / median["uvicorn"], 2),
        "errors": errors,
    }
