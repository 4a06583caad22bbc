"""The accounting: numbered events through every trigger that can promise something, while faults strike.

A block of numbers goes to every function at once; somewhere in it one fault strikes; then everything that was sent has
to have been handled before the next block. Each function appends every number it handles to a file with one write. The
`-once` functions also publish it at QoS 2 to a broker that no fault touches: that is what `effectively-once` promises
to show once. The file of such a function may hold a number twice after a kill: a handler's own doings are in no
transaction.

Not here: serial and cron, whose sources cannot send again and do not number what they send.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil

from tests.fault.accounting.producers import FileProducer, HttpProducer, MqttProducer, Producer
from tests.support.agent import Agent, running
from tests.support.eventually import wait_until
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqtt_peer import Peer

RECORD = """
import os, time
fd = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
def handler(context, event):
    os.write(fd, b"%s %.6f\\n" % (event.body, time.monotonic()))
    if {once}:
        context.publish("out", event.body, qos=2)
"""
JOURNAL = {"commitWindow": "10ms", "minFreeBytes": 0, "minFreePercent": 0}
RETRY = {"retryDelay": "50ms", "maxRetryDelay": "1s"}


@dataclass
class Row:
    """One fault at one trigger, of one block or several. `again`: handlers that ran again, `doubled`: what shows twice
    against the promise, `pause_s`: the longest time between two events handled, from the fault on.
    """

    fault: str
    trigger: str
    sent: int
    handled: int
    lost: int
    again: int
    doubled: int
    pause_s: float


class Accounting:
    """The agent, its functions, two brokers and the producers. Use `opened`."""

    FAULTS = ("worker killed", "processor killed", "agent killed", "broker killed", "broker frozen", "all killed")

    def __init__(self, folder: Path, seed: int, per_second: float) -> None:
        self.folder, self.per_second = folder, per_second
        self.random = random.Random(seed)
        self.agent = Agent(folder)
        self.broker = Mosquitto(folder / "broker", extra="log_type none")
        self.outside = Mosquitto(folder / "outside", extra="log_type none")
        self.producers: dict[str, Producer] = {}
        self.blocks: list[tuple[str, range, float]] = []  # fault, numbers, when it struck
        self._next = 0
        self._shown: dict[str, Counter[int]] = {}
        self._ports = {"http": free_port(), "http-once": free_port()}

    def once(self, name: str) -> bool:
        return name.endswith("-once")

    # --- what runs -------------------------------------------------------------------------------------------------

    def triggers(self) -> dict[str, dict[str, Any]]:
        def mqtt(name: str) -> dict[str, Any]:
            attributes = {
                "protocolVersion": 5,
                "clientID": name,
                "reconnectDelay": "50ms",
                "maxReconnectDelay": "500ms",
            }
            attributes["subscriptions"] = [{"topic": name, "qos": 1}]
            return {"kind": "mqtt", "url": self.broker.url, "attributes": attributes}

        lines = {"path": str(self.folder / "lines.log"), "read": "lines", "settle": "50ms"}
        return {
            "mqtt": mqtt("mqtt"),
            "mqtt-once": mqtt("mqtt-once"),
            "file-once": {"kind": "file", "attributes": lines},
            "http": {"kind": "http", "journal": JOURNAL, "attributes": {"port": self._ports["http"]}},
            "http-once": {"kind": "http", "attributes": {"port": self._ports["http-once"]}},
        }

    def function(self, name: str, trigger: dict[str, Any]) -> str:
        once = self.once(name)
        code = RECORD.format(path=str(self.folder / f"{name}.handled"), once=once)
        keys = {"delivery": "effectively-once" if once else "at-least-once", "maxAttempts": 50}
        spec: dict[str, Any] = {
            "runtime": "python",
            "handler": "main:handler",
            "build": {"functionSourceCode": base64.b64encode(code.encode()).decode()},
            "triggers": {"t": trigger | keys | RETRY},
        }
        if once:
            spec["bindings"] = {"out": {"kind": "mqtt", "url": self.outside.url, "topic": f"out/{name}"}}
        return json.dumps({"metadata": {"name": name}, "spec": spec})

    def start_agent(self) -> None:
        self.agent.start(HEADRACE__SUPERVISOR__SAFE_MODE_STARTS="0")

    def start(self, stack: ExitStack) -> None:
        stack.enter_context(self.broker)
        stack.enter_context(self.outside)
        stack.enter_context(Peer(self.outside.port, subscribe="out/#", configure=self._collect))
        stack.enter_context(running(self.agent))
        self.start_agent()
        port = self.broker.port
        self.producers = {
            "mqtt": MqttProducer(port, "mqtt"),
            "mqtt-once": MqttProducer(port, "mqtt-once"),
            "file-once": FileProducer(self.folder / "lines.log"),
            "http": HttpProducer(self._ports["http"]),
            "http-once": HttpProducer(self._ports["http-once"]),
        }
        for name, trigger in self.triggers().items():
            stack.callback(self.producers[name].close)
            self.agent.write(f"{name}.json", self.function(name, trigger))
        for name in self.producers:
            self.agent.serving(name)
        self.broker.save()  # the sessions

    # --- what is known ---------------------------------------------------------------------------------------------

    def _collect(self, client: paho.Client) -> None:
        self._shown = {f"out/{name}": Counter() for name in self.triggers()}
        client.on_message = lambda client, data, message: self._shown[message.topic].update([int(message.payload)])

    def records(self, name: str) -> list[tuple[int, float]]:
        """Number and time of everything that its handler did."""
        path = self.folder / f"{name}.handled"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(number), float(when)) for number, when in (line.split() for line in lines)]

    def seen(self, name: str) -> Counter[int]:
        """What counts: for `-once` what came out at the broker outside."""
        if self.once(name):
            return self._shown[f"out/{name}"].copy()
        return Counter(number for number, _ in self.records(name))

    # --- faults ----------------------------------------------------------------------------------------------------

    def strike(self, fault: str) -> None:
        {
            "worker killed": lambda: self._kill(workers=True),
            "processor killed": lambda: self._kill(workers=False),
            "agent killed": self._kill_agent,
            "all killed": self._kill_all,
            "broker killed": self._kill_broker,
            "broker frozen": self._freeze_broker,
        }[fault]()

    def _processors(self) -> set[int]:
        return {self.agent.status(name).get("pid", 0) for name in self.producers}

    def _kill(self, workers: bool) -> None:
        processors = self._processors()
        for process in self.agent.children():
            if (process.pid in processors) != workers:
                _kill(process)

    def _kill_agent(self) -> None:
        self.agent.stop(signal.SIGKILL)
        self.start_agent()

    def _kill_all(self) -> None:
        children = self.agent.children()
        assert self.agent.process is not None
        self.agent.process.kill()
        for process in children:
            _kill(process)
        self.agent.process.wait(20)
        self.start_agent()

    def _kill_broker(self) -> None:
        """It acknowledges before its store is written: what it took over since then is published again."""
        mqtt = [producer for producer in self.producers.values() if isinstance(producer, MqttProducer)]
        safe = [producer.acknowledged() for producer in mqtt]
        self.broker.save()
        self.broker.kill()
        self.broker.start()
        for producer, known in zip(mqtt, safe, strict=True):
            producer.again(known)

    def _freeze_broker(self) -> None:
        self.broker.freeze()
        threading.Event().wait(self.random.uniform(0.5, 2))
        self.broker.thaw()

    # --- a block ---------------------------------------------------------------------------------------------------

    def block(self, fault: str, size: int) -> None:
        """Send `size` numbers to each function, strike somewhere in them, wait until all are handled."""
        numbers = range(self._next, self._next + size)
        self._next += size
        struck = time.monotonic() + self.random.uniform(0.1, 0.8) * size / self.per_second
        with ThreadPoolExecutor(len(self.producers)) as pool:
            sending = [pool.submit(producer.send, numbers, self.per_second) for producer in self.producers.values()]
            threading.Event().wait(max(0.0, struck - time.monotonic()))
            struck = time.monotonic()
            if fault != "none":
                self.strike(fault)
            for one in sending:
                one.result()
        self.blocks.append((fault, numbers, struck))
        with contextlib.suppress(AssertionError):  # the table says what is lost
            wait_until(lambda: all(self.seen(name).keys() >= set(numbers) for name in self.producers), 20, every_s=0.1)
        for producer in self.producers.values():
            if isinstance(producer, MqttProducer):
                producer.forget()

    def rows(self) -> list[Row]:
        """One for each fault and trigger; everything is counted at the end, so that a late repetition counts."""
        return [row for name in self.producers for row in self._rows_of(name)]

    def _rows_of(self, name: str) -> Iterator[Row]:
        records, seen = self.records(name), self.seen(name)
        handled = Counter(number for number, _ in records)
        for fault in dict.fromkeys(fault for fault, _, _ in self.blocks):
            blocks = [(numbers, struck) for given, numbers, struck in self.blocks if given == fault]
            wanted = [number for numbers, _ in blocks for number in numbers]
            known = [handled[number] for number in wanted if handled[number]]
            shown = [seen[number] for number in wanted if seen[number]]
            doubled = sum(shown) - len(shown) if self.once(name) else 0
            pause = max(_pause([when for number, when in records if number in numbers], at) for numbers, at in blocks)
            lost, again = len(wanted) - len(shown), sum(known) - len(known)
            yield Row(fault, name, len(wanted), len(known), lost, again, doubled, pause)


def table(rows: list[Row]) -> str:
    lines = [
        "| fault | trigger | sent | handled | lost | ran again | doubled | longest pause |",
        "|---|---" + "|---:" * 6 + "|",
    ]
    for r in sorted(rows, key=lambda row: row.fault):
        cells = (r.fault, r.trigger, r.sent, r.handled, r.lost, r.again, r.doubled, f"{r.pause_s:.2f} s")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _pause(times: list[float], struck: float) -> float:
    """The longest gap that ends after the strike."""
    return max((later - sooner for sooner, later in itertools.pairwise(sorted(times)) if later > struck), default=0.0)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@contextmanager
def opened(folder: Path, seed: int, per_second: float) -> Iterator[Accounting]:
    with ExitStack() as stack:
        accounting = Accounting(folder, seed, per_second)
        accounting.start(stack)
        yield accounting


Report = Callable[[str], None]


def account(folder: Path, events: int, block: int, seed: int, per_second: float, report: Report = print) -> list[Row]:
    """Blocks of `block` numbers until every trigger has had `events`: each fault in the first six, then at random."""
    with opened(folder, seed, per_second) as accounting:
        faults = list(Accounting.FAULTS)
        accounting.random.shuffle(faults)
        for count in range(-(-events // block)):
            fault = faults[count] if count < len(faults) else accounting.random.choice(faults)
            accounting.block(fault, block)
        accounting.block("none", 100)  # behind everything: what is repeated late has come by now
        rows = accounting.rows()
        report(table(rows))
        return rows
