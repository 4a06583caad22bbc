"""Every peer of the benchmark, by the name its row has. The order is the order of the rows."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from tests.bench.channel.peer import Peer

SIZES = (0, 128, 4096, 65536, 1 << 20)
_HERE = "tests.bench.channel"


class Entry(NamedTuple):
    """A row: where its class is, the sizes it makes sense for, and what the reader must know."""

    name: str
    at: str
    what: str
    sizes: tuple[int, ...] = SIZES
    group: str = "peers"
    two_way: bool = True


PEERS = (
    Entry("headrace", "ours:Headrace", "ProcessorChannel to WorkerChannel, rings of 256 KiB, the default"),
    Entry("headrace-8m", "ours:LargeRing", "the same, rings of 8 MiB", (65536, 1 << 20)),
    Entry("headrace-poll", "ours:EventLoop", "the near side waits as an event loop does: epoll, then read", (128,)),
    Entry("headrace-spin", "ours:NearSpins", "the near side spins for 20 us too before it sleeps", (128,)),
    Entry("mp.Queue", "stdlib:Queue", "multiprocessing.Queue"),
    Entry("mp.Pipe", "stdlib:Pipe", "multiprocessing.Pipe, send_bytes and recv_bytes"),
    Entry("faster-fifo", "fifo:FasterFifo", "faster_fifo.Queue, put and get, bytes without pickle"),
    Entry("pyzmq", "zeromq:Pyzmq", "ipc://, PUSH to PULL, REQ and REP"),
    Entry("iceoryx2", "iceoryx:Notified", "publish-subscribe, a notification each, the receiver sleeps"),
    Entry("iceoryx2-poll", "iceoryx:Polled", "publish-subscribe, no notification, the receiver polls"),
    Entry("zenoh", "zenoh_shm:Zenoh", "eclipse-zenoh, shared memory, unix socket"),
    Entry("unix-stream", "sockets:Stream", "SOCK_STREAM, length before each message, buffered reading"),
    Entry("unix-seqpacket", "sockets:Packets", "SOCK_SEQPACKET"),
    Entry("c-ring", "floor", "floor: the same ring from C to C, the body copied out"),
    Entry("python-call", "nothing:Nothing", "floor: empty Python functions send and receive", (128,), two_way=False),
    Entry("memcpy", "memcpy", "floor: one memcpy of the body, one process", two_way=False),
    Entry("spin-0", "ours:Spin0", "HEADRACE_SPIN_US=0", (128,), "spin"),
    Entry("spin-5", "ours:Spin5", "HEADRACE_SPIN_US=5", (128,), "spin"),
    Entry("spin-20", "ours:Spin20", "HEADRACE_SPIN_US=20", (128,), "spin"),
    Entry("spin-50", "ours:Spin50", "HEADRACE_SPIN_US=50", (128,), "spin"),
)


def load(entry: Entry) -> Callable[[int], Peer]:
    """The class behind a row of ours that is written in Python."""
    module, _, name = entry.at.partition(":")
    found: Any = getattr(importlib.import_module(f"{_HERE}.peers.{module}"), name)
    return cast(Callable[[int], Peer], found)
