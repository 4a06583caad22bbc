"""How many messages a second reach us, against a bare paho subscriber, on one broker in one run.

    python -m tests.bench.mqtt_receive [--messages 40000] [--rounds 3]

Both sides get the same load: a backlog of `messages` in a persistent session, so that the publisher takes no processor
time while one is measured (`backlog`), and a live `mosquitto_pub -l` (`live`, where publisher, broker and subscriber
share the machine and the publisher is often the limit). The bare subscriber is paho's own thread with manual
acknowledgement; ours is the trigger with a sink that answers at once. Prints JSON. Rounds alternate; medians are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.model.event import Event, Outcome, Result
from agent.triggers.mqtt import link
from agent.triggers.mqtt.spec import MqttSpec, Subscription
from agent.triggers.mqtt.trigger import run
from tests.support.eventually import eventually
from tests.support.mosquitto import Mosquitto
from tests.support.recording_sink import RecordingSink

BODY = b"x" * 64
OK = Outcome(Result.REPLIED, 200)


class CountingSink(RecordingSink):
    """Answers at once, counts, and says when the last one is here."""

    def __init__(self, folder: Path, expected: int) -> None:
        super().__init__(folder)
        self.expected, self.got = expected, 0
        self.finished = asyncio.Event()
        self.first = 0.0

    def deliver(self, event: Event, done: Callable[[Outcome], None]) -> None:
        if not self.got:
            self.first = time.perf_counter()
        self.got += 1
        asyncio.get_running_loop().call_soon(done, OK)
        if self.got >= self.expected:
            self.finished.set()

    dispatch = deliver

    async def drained(self) -> None:
        return


class BareSubscriber:
    """paho as its manual shows it: loop_start, on_message, ack."""

    def __init__(self, port: int, name: str, qos: int, expected: int, *, counting: bool = False) -> None:
        self.expected, self.got, self.qos = expected, 0, qos
        self.first, self.recv_calls = 0.0, 0
        self.finished, self.subscribed = threading.Event(), threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            clean_session=False,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self.client.on_message = self._on_message
        self.client.on_connect = lambda *_: self.client.subscribe("bench/#", qos)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        if counting:
            plain = self.client._sock_recv

            def counted(size: int) -> bytes:
                self.recv_calls += 1
                return plain(size)

            self.client._sock_recv = counted  # type: ignore[method-assign]
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if not self.got:
            self.first = time.perf_counter()
        self.got += 1
        client.ack(message.mid, message.qos)
        if self.got >= self.expected:
            self.finished.set()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def publish(port: int, qos: int, messages: int) -> None:
    lines = (BODY + b"\n") * messages
    command = ["mosquitto_pub", "-p", str(port), "-t", "bench/a", "-q", str(qos), "-l"]
    subprocess.run(command, input=lines, check=True)


def bare(port: int, name: str, qos: int, messages: int, *, backlog: bool, counting: bool = False) -> dict[str, float]:
    if backlog:
        prepared = BareSubscriber(port, name, qos, messages)
        prepared.subscribed.wait(10)
        prepared.close()
        publish(port, qos, messages)
    before = time.process_time()
    subscriber = BareSubscriber(port, name, qos, messages, counting=counting)
    subscriber.subscribed.wait(10)
    if not backlog:
        publish(port, qos, messages)
    arrived = subscriber.finished.wait(120)
    took, cpu = time.perf_counter() - subscriber.first, time.process_time() - before
    subscriber.close()
    return figures(subscriber.got, messages, arrived, took, cpu, subscriber.recv_calls)


async def ours(port: int, name: str, qos: int, messages: int, version: int, *, backlog: bool) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp())
    spec = MqttSpec(
        kind="mqtt",
        url=f"tcp://127.0.0.1:{port}",
        client_id=name,
        protocol_version=version,
        subscriptions=[Subscription(topic="bench/#", qos=qos)],
    )
    if backlog:
        await open_session(spec, CountingSink(folder, messages))
        await asyncio.to_thread(publish, port, qos, messages)
    before = time.process_time()
    sink = CountingSink(folder, messages)
    reads = count_reads()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(spec, sink))
        if not backlog:
            await eventually(lambda: sink.state == "up")
            await asyncio.to_thread(publish, port, qos, messages)
        await asyncio.wait_for(sink.finished.wait(), 120)
        took, cpu = time.perf_counter() - sink.first, time.process_time() - before
        task.cancel()
    return figures(sink.got, messages, sink.finished.is_set(), took, cpu, reads())


async def open_session(spec: MqttSpec, sink: CountingSink) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(spec, sink))
        await eventually(lambda: sink.state == "up")
        task.cancel()


def count_reads() -> Callable[[], int]:
    """One `data_received` is one successful recv of asyncio's transport."""
    plain, counted = link.Link.data_received, [0]

    def counting(self: link.Link, data: bytes) -> None:
        counted[0] += 1
        plain(self, data)

    link.Link.data_received = counting  # type: ignore[method-assign]

    def finish() -> int:
        link.Link.data_received = plain  # type: ignore[method-assign]
        return counted[0]

    return finish


def figures(got: int, messages: int, arrived: bool, took: float, cpu: float, recvs: int) -> dict[str, float]:
    return {
        "per_s": round(got / took),
        "cpu_us_per_message": round(cpu / got * 1e6, 1),
        "recv_per_message": round(recvs / got, 3),
        "complete": float(arrived and got >= messages),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--messages", type=int, default=40_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--inflight", type=int, default=20, help="the broker's max_inflight_messages")
    options.add_argument("--uvloop", action="store_true")
    given = options.parse_args()
    runner: Callable[[Any], Any] = asyncio.run
    if given.uvloop:
        import uvloop

        runner = uvloop.run
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        extra = f"log_type none\nmax_inflight_messages {given.inflight}"
        with Mosquitto(Path(folder) / "broker", extra=extra) as broker:
            for count in range(given.rounds):
                for qos in (0, 1):
                    for backlog in (True, False) if qos else (False,):
                        case = f"qos{qos}_{'backlog' if backlog else 'live'}"
                        name = f"{case}-{count}"
                        measured = bare(broker.port, f"bare-{name}", qos, given.messages, backlog=backlog)
                        found.setdefault(f"{case}.paho", []).append(measured)
                        for version in (4, 5):
                            work = ours(
                                broker.port, f"v{version}-{name}", qos, given.messages, version, backlog=backlog
                            )
                            found.setdefault(f"{case}.ours_v{version}", []).append(runner(work))
            counted = bare(broker.port, "counted", 1, 5000, backlog=True, counting=True)
    medians = {
        case: {key: statistics.median(item[key] for item in rounds) for key in rounds[0]}
        for case, rounds in found.items()
    }
    for case in medians:
        if not case.endswith(".paho"):
            base = medians[case.partition(".")[0] + ".paho"]["per_s"]
            medians[case]["ratio_to_paho"] = round(medians[case]["per_s"] / base, 2)
    print(
        json.dumps(
            {
                "machine": platform.platform(),
                "python": platform.python_version(),
                "loop": "uvloop" if given.uvloop else "asyncio",
                "messages": given.messages,
                "rounds": given.rounds,
                "max_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                "paho_recv_per_message": counted["recv_per_message"],
                "results": medians,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
