"""MQTT QoS 0 and 1 to a Python handler in a worker, against a bare paho subscriber on the same broker, in one run."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.mqtt_receive import bare, publish
from tests.support.mosquitto import Mosquitto
from tests.support.processor import RunningProcessor, running

HANDLER = "def handler(context, event):\n    return ''\n"


async def ours(folder: Path, port: int, name: str, qos: int, messages: int) -> float:
    """Messages a second that a handler has done and the broker has been told of; the backlog waits in the session."""
    keys: dict[str, Any] = {
        "kind": "mqtt",
        "interval": None,
        "url": f"tcp://127.0.0.1:{port}",
        "attributes": {"clientID": name, "subscriptions": [{"topic": "bench/#", "qos": qos}]},
    }
    async with running(folder, HANDLER, **keys) as f:
        await _until(lambda: f.sink.statistics.up)
        if qos == 0:
            return await _timed(f, messages, asyncio.to_thread(publish, port, qos, messages))
    await asyncio.to_thread(publish, port, qos, messages)
    async with running(folder, HANDLER, **keys) as f:
        return await _timed(f, messages, None)


async def _timed(f: RunningProcessor, messages: int, publishing: Any) -> float:
    if publishing:
        task = asyncio.create_task(publishing)
    await _until(lambda: f.sink.statistics.handled)
    first, begun = f.sink.statistics.handled, time.perf_counter()
    await _until(lambda: f.sink.statistics.handled >= messages)
    took = time.perf_counter() - begun
    if publishing:
        await task
    return (messages - first) / took


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the messages did not arrive")
        await asyncio.sleep(0.002)


def bench(rounds: int, messages: int) -> dict[str, Any]:
    """Medians of messages a second."""
    import uvloop

    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder) / "broker", extra="log_type none") as broker:
        for count in range(rounds):
            for qos in (0, 1):
                peer = bare(broker.port, f"bare-{qos}-{count}", qos, messages, backlog=qos == 1)
                found.setdefault(f"qos{qos}_paho", []).append(peer["per_s"])
                place = Path(folder) / f"f-{qos}-{count}"
                place.mkdir()
                rate = uvloop.run(ours(place, broker.port, f"ours-{qos}-{count}", qos, messages))
                found.setdefault(f"qos{qos}_function", []).append(rate)
    median = {name: round(statistics.median(values)) for name, values in found.items()}
    return {
        "messages_per_s": median,
        "qos0_to_paho": round(median["qos0_function"] / median["qos0_paho"], 2),
        "qos1_to_paho": round(median["qos1_function"] / median["qos1_paho"], 2),
    }
