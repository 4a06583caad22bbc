"""The parts that feed the demo's functions: each is real, and counts what it has sent.

Flow: a producer -> its medium (socket, broker, serial line, folder) -> a trigger. Promise: `sent` grows only by what
really left: a request that was written, a message the broker has, a line in the terminal, a file that has its name.
"""

from __future__ import annotations

import asyncio
import os
import random
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

ROOMS = ("kitchen", "bath", "study", "hall")
PRODUCTS = ("bolt", "nut", "washer", "spring")

HTTP_EVERY_S = 0.02
MQTT_EVERY_S = 0.05
SERIAL_EVERY_S = 0.1
FILE_EVERY_S = 0.5
CRON_EVERY_S = 0.5
"""Of configs/demo/heartbeat."""
ACKNOWLEDGE_S = 2.0


@dataclass(slots=True)
class Sent:
    """Events that left, by kind of source."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, n: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + n


async def call_over_http(url: str, sent: Sent, stop: asyncio.Event) -> None:
    """Asks for another temperature 50 times a second, over one connection that is kept alive."""
    where = urlsplit(url)
    host, port = where.hostname or "127.0.0.1", where.port or 80
    while not stop.is_set():
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while not stop.is_set():
                celsius = random.randint(-20, 40)
                writer.write(f"GET /?celsius={celsius} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                sent.add("http")
                await read_reply(reader)
                await pause(stop, HTTP_EVERY_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            await pause(stop, HTTP_EVERY_S)  # what was asked counts as sent: an answer that never came is a loss
        finally:
            writer.close()


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """The body of one HTTP reply with a Content-Length. Raises IncompleteReadError when the other side hangs up."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return await reader.readexactly(int(value))
    return b""


@contextmanager
def open_publisher(url: str) -> Iterator[Client]:
    """A paho client with its network thread, connected before long."""
    where = urlsplit(url)
    client = Client(CallbackAPIVersion.VERSION2, client_id="headrace-demo-sensors")
    client.connect_async(where.hostname or "127.0.0.1", where.port or 1883)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


async def publish_over_mqtt(client: Client, sent: Sent, stop: asyncio.Event) -> None:
    """Publishes temperatures of rooms, QoS 1, 20 times a second."""
    loop, waiting, none_waits = asyncio.get_running_loop(), 0, asyncio.Event()

    def acknowledged() -> None:
        nonlocal waiting
        waiting -= 1
        sent.add("mqtt")  # the broker has it
        if not waiting:
            none_waits.set()

    def on_publish(*_: object) -> None:
        loop.call_soon_threadsafe(acknowledged)

    client.on_publish = on_publish
    celsius = dict.fromkeys(ROOMS, 20.0)
    while not stop.is_set():
        room = random.choice(ROOMS)
        celsius[room] += random.uniform(-0.4, 0.4) + (20.0 - celsius[room]) * 0.05
        waiting += 1
        none_waits.clear()
        client.publish(f"sensors/{room}/temperature", f"{celsius[room]:.1f}", qos=1)
        await pause(stop, MQTT_EVERY_S)
    with suppress(TimeoutError):
        async with asyncio.timeout(ACKNOWLEDGE_S):
            await none_waits.wait()


@contextmanager
def open_line() -> Iterator[tuple[int, str]]:
    """A serial line: the descriptor of the device's end, which does not block, and the path of ours."""
    device, ours = os.openpty()
    try:
        path = os.ttyname(ours)
        tty.setraw(ours)
        os.set_blocking(device, False)
    finally:
        os.close(ours)
    try:
        yield device, path
    finally:
        os.close(device)


async def measure_weather(device: int, sent: Sent, stop: asyncio.Event) -> None:
    """Writes an NMEA sentence ten times a second, as a weather station does."""
    while not stop.is_set():
        readings = (f"WIMTA,{random.uniform(-5, 30):.1f},C", f"WIMHU,{random.uniform(30, 90):.1f},,12.0,C")
        line = sentence(random.choice(readings))
        try:
            if os.write(device, line) == len(line):
                sent.add("serial")
        except BlockingIOError:
            pass  # nobody reads: a real line would lose it too, but then it was never sent
        await pause(stop, SERIAL_EVERY_S)


def sentence(text: str) -> bytes:
    """`text` as an NMEA sentence with its checksum."""
    checksum = reduce(lambda sum_, char: sum_ ^ ord(char), text, 0)
    return f"${text}*{checksum:02X}\r\n".encode()


async def write_files(inbox: Path, parts: Path, sent: Sent, stop: asyncio.Event) -> None:
    """Every half second a CSV file, written in pieces under another name and renamed when it is complete."""
    number = 0
    while not stop.is_set():
        number += 1
        unfinished = inbox / f".sales-{number}.csv.part" if number % 2 else parts / f"sales-{number}.csv"
        with unfinished.open("w") as file:
            file.write("product,pieces,price\n")
            for _ in range(random.randint(1, 20)):
                file.write(f"{random.choice(PRODUCTS)},{random.randint(1, 99)},{random.uniform(0.1, 9):.2f}\n")
                file.flush()
                await asyncio.sleep(0)
        unfinished.rename(inbox / f"sales-{number}.csv")
        sent.add("file")
        await pause(stop, FILE_EVERY_S)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop`, but not longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
