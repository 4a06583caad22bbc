"""The channel: ProcessorChannel on the near side, WorkerChannel on the far side, one Python call a step.

One way: put_event; take, body, release.  Round trip: put_event; take, body, reply, release; drain.
The near side waits as a processor does: `sleep`, wait for the doorbell, `awake`, `drain`.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, ClassVar

from shmem import _channel
from shmem.segment import Segment
from tests.bench.channel.peer import End, Peer

_TEXTS = ("",) * 11
_FULL_S = 20e-6  # a full ring holds a quarter of a millisecond of work: look away for some of it
_SPIN_NS = 20_000


class Headrace(Peer):
    """With the rings a function gets by default: a body over a quarter of one travels in a segment of its own."""

    ring_bytes: ClassVar[int] = 1 << 18
    waits: ClassVar[str] = "read"
    spin_us: ClassVar[int | None] = None  # of the worker; None: its own default

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._segment = Segment(_channel.HEADER_BYTES + 2 * self.ring_bytes)
        self._event_read, self._event_write = os.pipe()
        self._reply_read, self._reply_write = os.pipe()
        os.set_blocking(self._event_write, False)
        os.set_blocking(self._reply_read, self.waits == "read")
        self._channel = _channel.ProcessorChannel(
            self._segment.buffer,
            self._segment.name,
            self.ring_bytes,
            self.ring_bytes,
            self._event_write,
            self._reply_read,
            7,
        )

    def near(self) -> End:
        os.close(self._event_read)
        os.close(self._reply_write)
        return _NearEnd(self._channel, _WAITS[self.waits](self._channel, self._reply_read))

    def far(self) -> End:
        os.close(self._event_write)
        os.close(self._reply_read)
        if self.spin_us is not None:
            os.environ["HEADRACE_SPIN_US"] = str(self.spin_us)
        return _FarEnd(_channel.WorkerChannel(self._segment.name, self._event_read, self._reply_write))

    def close(self) -> None:
        self._channel.close()
        self._segment.close()


class LargeRing(Headrace):
    """With rings of 8 MiB, so that a body of 1 MiB stays in the ring."""

    ring_bytes = 8 << 20


class EventLoop(Headrace):
    """The near side waits as an event loop does: poll first, then read, one system call more than a blocking read."""

    waits = "poll"


class NearSpins(Headrace):
    """The near side looks at its ring for up to 20 microseconds before it sleeps, as the worker's side does."""

    waits = "spin"


class Spin0(Headrace):
    """HEADRACE_SPIN_US=0: the worker never spins."""

    spin_us = 0


class Spin5(Headrace):
    """HEADRACE_SPIN_US=5."""

    spin_us = 5


class Spin20(Headrace):
    """HEADRACE_SPIN_US=20, the default on more than one core."""

    spin_us = 20


class Spin50(Headrace):
    """HEADRACE_SPIN_US=50."""

    spin_us = 50


class _NearEnd(End):
    def __init__(self, channel: _channel.ProcessorChannel, wait: Callable[[], None]) -> None:
        self._channel, self._wait = channel, wait

    def send(self, body: bytes) -> None:
        while not self._channel.put_event(1, 0, 0, 0, -1, 0, _TEXTS, (), b"", body):
            time.sleep(_FULL_S)

    def send_many(self, count: int, body: bytes) -> None:
        put, sleep, texts = self._channel.put_event, time.sleep, _TEXTS
        for id in range(count):
            while not put(id, 0, 0, 0, -1, 0, texts, (), b"", body):
                sleep(_FULL_S)

    def exchange(self) -> Callable[[bytes], object]:
        put, drain, wait, texts = self._channel.put_event, self._channel.drain, self._wait, _TEXTS

        def exchange(body: bytes) -> object:
            put(1, 0, 0, 0, -1, 0, texts, (), b"", body)
            while not (records := drain()):
                wait()
            return records[0][6]

        return exchange


class _FarEnd(End):
    def __init__(self, channel: _channel.WorkerChannel) -> None:
        self._channel = channel

    def receive_many(self, count: int) -> int:
        take, body, release, wait = self._channel.take, self._channel.body, self._channel.release, self._channel.wait
        content: bytes = b""
        for _ in range(count):
            while take() is None:
                wait()
            content = body()
            release()
        return len(content)

    def echo(self, count: int) -> int:
        channel = self._channel
        take, body, release, wait, reply = channel.take, channel.body, channel.release, channel.wait, channel.reply
        content: bytes = b""
        for _ in range(count):
            while (record := take()) is None:
                wait()
            content = body()
            reply(record[2], 200, "", None, content)
            release()
        return len(content)


def _read(channel: _channel.ProcessorChannel, bell: int) -> Callable[[], None]:
    def wait() -> None:
        if channel.sleep():
            channel.awake()

    return wait


def _poll(channel: _channel.ProcessorChannel, bell: int) -> Callable[[], None]:
    poller = select.epoll()
    poller.register(bell, select.EPOLLIN)

    def wait() -> None:
        if channel.sleep():
            poller.poll()
            channel.awake()

    return wait


def _spin(channel: _channel.ProcessorChannel, bell: int) -> Callable[[], None]:
    now, poll, since = time.monotonic_ns, _poll(channel, bell), [0]

    def wait() -> None:
        """Returns at once, so that the caller drains again, until 20 microseconds have passed since it began."""
        at = now()
        if at - since[0] > 8 * _SPIN_NS:  # the first look of a new wait
            since[0] = at
        elif at - since[0] > _SPIN_NS:
            poll()
            since[0] = 0

    return wait


_WAITS: dict[str, Any] = {"read": _read, "poll": _poll, "spin": _spin}
