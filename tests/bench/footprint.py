"""What it costs to be there: PSS of the agent and of a function, CPU while idle, drop-in to first answer."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.support.agent import Agent, running

HANDLER = "def handler(context, event):\n    return 'hello'\n"


def drop(agent: Agent, name: str, port: int) -> None:
    """A YAML file with its code inside, as an operator drops it."""
    document = {
        "metadata": {"name": name},
        "spec": {
            "runtime": "python",
            "handler": "hello:handler",
            "triggers": {"web": {"kind": "http", "attributes": {"port": port}}},
            "build": {"functionSourceCode": _base64(HANDLER)},
        },
    }
    agent.write(f"{name}.yaml", json.dumps(document))


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


def first_answer_s(agent: Agent, name: str, port: int) -> float:
    """Seconds from the rename into functions.d/ to the first answer."""
    begun = time.perf_counter()
    drop(agent, name, port)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            return time.perf_counter() - begun
        except (urllib.error.URLError, ConnectionError):
            if time.perf_counter() - begun > 20:
                raise SystemExit(agent.log()) from None
            time.sleep(0.002)


def bench(functions: int, idle_s: float) -> dict[str, Any]:
    """Starts an agent, drops `functions` functions in, then leaves it alone for `idle_s` seconds."""
    with tempfile.TemporaryDirectory() as folder, running(Agent(Path(folder)).start()) as agent:
        assert agent.process is not None
        alone = _pss_mb(_everyone(agent))
        starts = [first_answer_s(agent, f"f{number}", 18200 + number) for number in range(functions)]
        everyone = _everyone(agent)
        before = _cpu_s(everyone)
        time.sleep(idle_s)
        used = _cpu_s(everyone) - before
        together = _pss_mb(everyone)
        return {
            "agent_pss_mb": round(alone, 1),
            "per_function_pss_mb": round((together - alone) / functions, 1),
            "functions": functions,
            "idle_cpu_percent_of_a_core": round(100 * used / idle_s, 2),
            "cold_start_ms_median": round(1000 * statistics.median(starts)),
            "cold_start_ms_all": [round(1000 * value) for value in starts],
        }


def _everyone(agent: Agent) -> list[psutil.Process]:
    """The agent, its nurseries, and all that runs for functions."""
    assert agent.process is not None
    first = psutil.Process(agent.process.pid)
    return [first, *first.children(recursive=True)]


def _pss_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(item.user + item.system for item in times)
