"""What a way of carrying bytes from one process to another must offer to be measured.

Flow: pair.py makes a Peer in one process, forks, opens `far` there and `near` here, and runs the loops below.
Promise: every peer runs the same loops in Python, each written the way a careful user of that peer would write it;
a peer replaces a loop only where its own form is faster or the only possible one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from array import array
from collections.abc import Callable


class Unfit(Exception):
    """This peer can not do that, and the text says why: it becomes a row of the report."""


class End:
    """One side. A subclass sets `send` and `receive`, both blocking."""

    send: Callable[[bytes], object]
    receive: Callable[[], object]

    def send_many(self, count: int, body: bytes) -> None:
        """Send `count` messages, one call each."""
        send = self.send
        for _ in range(count):
            send(body)

    def receive_many(self, count: int) -> int:
        """Receive `count` messages, one call each; length of the last one."""
        receive = self.receive
        for _ in range(count - 1):
            receive()
        return len(receive())  # type: ignore[arg-type]

    def ping(self, count: int, body: bytes, pause_s: float) -> array[int]:
        """`count` round trips, `pause_s` of rest before each; nanoseconds of each."""
        return timed(count, pause_s, self.exchange(), body)

    def exchange(self) -> Callable[[bytes], object]:
        """One round trip as seen from the near side."""
        send, receive = self.send, self.receive

        def exchange(body: bytes) -> object:
            send(body)
            return receive()

        return exchange

    def echo(self, count: int) -> int:
        """Answer `count` messages with what came; length of the last one."""
        send, receive = self.send, self.receive
        body: bytes = b""
        for _ in range(count):
            body = receive()  # type: ignore[assignment]
            send(body)
        return len(body)

    def close(self) -> None:
        """Give back what would outlive the process."""


class Peer:
    """Made in the near process before the far one is forked, so it may hold what must be inherited."""

    size: int
    note = ""

    def __init__(self, size: int) -> None:
        self.size = size

    def near(self) -> End:
        raise NotImplementedError

    def far(self) -> End:
        raise NotImplementedError

    def close(self) -> None:
        """Called in the near process after both ends are done."""


def timed(count: int, pause_s: float, exchange: Callable[[bytes], object], body: bytes) -> array[int]:
    """Nanoseconds of each of `count` exchanges."""
    took = array("Q", bytes(8 * count))
    now, sleep = time.perf_counter_ns, time.sleep
    for index in range(count):
        if pause_s:
            sleep(pause_s)
        begin = now()
        exchange(body)
        took[index] = now() - begin
    return took


def require(module: str, package: str) -> str:
    """The version of an installed package. Raises Unfit with what to install when it is missing."""
    try:
        importlib.import_module(module)
        return importlib.metadata.version(package)
    except ImportError as error:
        raise Unfit(f"not installed ({error}): pip install {package}") from error
