"""Two processes of one peer, told over pipes what to do; what they took comes back with their CPU time.

Flow: run.py -> [Pair] -> near process (made the Peer, runs the sending side) and its child, the far process.
Promise: the process that runs the benchmark loads no peer's library and holds none of its resources; a peer that
hangs is killed and becomes a row that says so.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from shmem import _channel
from tests.bench.channel.peer import End, Peer, Unfit

_PATIENCE_S = 15.0
_fork = multiprocessing.get_context("fork")


@dataclass
class Took:
    """One measured stretch: seconds from the first message sent to the last one received, and what both sides used."""

    count: int
    seconds: float
    near_cpu_s: float = 0.0
    far_cpu_s: float = 0.0
    switches: int = 0  # context switches of both
    latencies_ns: array[int] = field(default_factory=lambda: array("Q"))


class Pair:
    """Started when made. Raises Unfit when the peer can not start. Use with `contextlib.closing`."""

    def __init__(self, peer: Callable[[int], Peer], size: int) -> None:
        self.size = size
        self._near_control, near_end = _fork.Pipe()
        self._far_control, far_end = _fork.Pipe()
        self._process = _fork.Process(target=_near_main, args=(peer, size, near_end, far_end, os.getpid()))
        self._process.start()
        near_end.close()
        far_end.close()
        try:
            self.note = self._hear(self._near_control, self._far_control)
            self.far_pid = self._hear(self._far_control)
        except BaseException:
            self.close()
            raise
        self.near_pid = self._process.pid or 0

    def one_way(self, count: int) -> Took:
        """`count` messages from near to far, as fast as they go."""
        return self._measure(("receive", count), ("send", count))

    def round_trips(self, count: int, pause_s: float) -> Took:
        """`count` messages there and back, one at a time."""
        return self._measure(("echo", count), ("ping", count, pause_s))

    def paced(self, count: int, per_second: float) -> Took:
        """`count` messages from near to far, evenly spread."""
        return self._measure(("receive", count), ("pace", count, per_second))

    def close(self) -> None:
        """End both processes: ask, then kill."""
        for control in (self._near_control, self._far_control):
            try:
                control.send(None)
            except OSError:
                continue
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()  # the far process dies with it
        self._process.join()
        self._near_control.close()
        self._far_control.close()
        self._process.close()

    def _measure(self, far: tuple[Any, ...], near: tuple[Any, ...]) -> Took:
        self._far_control.send(far)
        self._near_control.send(near)
        latencies, began, _, near_cpu, near_switches = self._hear(self._near_control, self._far_control)
        last, _, ended, far_cpu, far_switches = self._hear(self._far_control)
        if last not in (self.size, max(self.size, 1)):  # iceoryx2 has no slices of length 0
            raise Unfit(f"the last message has {last} bytes, not {self.size}")
        took = Took(near[1], (ended - began) / 1e9, near_cpu, far_cpu, near_switches + far_switches)
        if isinstance(latencies, bytes):
            took.latencies_ns.frombytes(latencies)
        return took

    def _hear(self, control: Connection, other: Connection | None = None) -> Any:
        """What a process says next. When it has nothing to say, the other one may know why."""
        try:
            if not control.poll(_PATIENCE_S):
                raise Unfit(f"no answer within {_PATIENCE_S:.0f} s")
            what, value = control.recv()
        except (EOFError, Unfit) as error:
            if other is not None and other.poll(0.2):
                self._hear(other)
            raise Unfit(str(error) or "a process ended without a word") from None
        if what == "failed":
            raise Unfit(value)
        return value


def _near_main(
    peer: Callable[[int], Peer], size: int, control: Connection, far_control: Connection, driver: int
) -> None:
    """The near process: makes the peer, forks the far process, opens its own end once that one is ready."""
    _channel.die_with_parent(driver)
    made: Peer | None = None
    try:
        made = peer(size)
        ready, tell = os.pipe()
        far = _fork.Process(target=_far_main, args=(made, far_control, ready, tell, os.getpid()))
        far.start()
        far_control.close()
        os.close(tell)
        if os.read(ready, 1):
            _serve(made.near(), size, control, lambda: control.send(("ready", made.note)))
        far.join(1.0)
        far.kill()
    except BaseException as error:
        _say_failed(control, error)
    if made is not None:
        made.close()
    os._exit(0)  # without the exit handlers of the libraries: queues would wait for their feeders


def _far_main(made: Peer, control: Connection, ready: int, tell: int, near: int) -> None:
    _channel.die_with_parent(near)
    os.close(ready)

    def opened() -> None:
        control.send(("ready", os.getpid()))
        os.write(tell, b"r")

    try:
        _serve(made.far(), made.size, control, opened)
    except BaseException as error:
        _say_failed(control, error)
    os._exit(0)


def _say_failed(control: Connection, error: BaseException) -> None:
    text = str(error) if isinstance(error, Unfit) else f"{type(error).__name__}: {error}"
    control.send(("failed", text))


def _serve(end: End, size: int, control: Connection, opened: Callable[[], None]) -> None:
    """Do what the driver says until it says nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is the driver's: it ends us
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    works: dict[str, Callable[..., object]] = {
        "send": lambda count: end.send_many(count, body),
        "pace": lambda count, per_second: _pace(end, count, body, per_second),
        "ping": lambda count, pause_s: end.ping(count, body, pause_s).tobytes(),
        "receive": end.receive_many,
        "echo": end.echo,
    }
    opened()
    while (command := control.recv()) is not None:
        control.send(("took", _metered(works[command[0]], *command[1:])))
    end.close()


def _metered(work: Callable[..., object], *arguments: Any) -> tuple[object, int, int, float, int]:
    """What `work` returned, when it began and ended, CPU seconds and context switches of this process meanwhile."""
    cpu, usage, began = time.process_time(), resource.getrusage(resource.RUSAGE_SELF), time.monotonic_ns()
    result = work(*arguments)
    ended, after = time.monotonic_ns(), resource.getrusage(resource.RUSAGE_SELF)
    switches = after.ru_nvcsw + after.ru_nivcsw - usage.ru_nvcsw - usage.ru_nivcsw
    return result, began, ended, time.process_time() - cpu, switches


def _pace(end: End, count: int, body: bytes, per_second: float) -> None:
    send, sleep, now = end.send, time.sleep, time.monotonic
    due = now()
    for _ in range(count):
        due += 1 / per_second
        if (left := due - now()) > 0:
            sleep(left)
        send(body)
