"""What the standard library offers: multiprocessing's Queue and Pipe."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection
from typing import Any

from tests.bench.channel.peer import End, Peer


class Queue(Peer):
    """`multiprocessing.Queue`: pickle, a thread that feeds a pipe, locks on both ends."""

    note = f"Python {sys.version.split()[0]}"

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.there: Any = multiprocessing.get_context("fork").Queue()
        self.back: Any = multiprocessing.get_context("fork").Queue()

    def near(self) -> End:
        return _ends(self.there.put, self.back.get)

    def far(self) -> End:
        return _ends(self.back.put, self.there.get)


class Pipe(Peer):
    """`multiprocessing.Pipe(duplex=False)`, one each way, with send_bytes and recv_bytes: no pickle, no lock."""

    note = f"Python {sys.version.split()[0]}"

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.far_reads, self.near_writes = _pipe()
        self.near_reads, self.far_writes = _pipe()

    def near(self) -> End:
        return _ends(self.near_writes.send_bytes, self.near_reads.recv_bytes)

    def far(self) -> End:
        return _ends(self.far_writes.send_bytes, self.far_reads.recv_bytes)


def _pipe() -> tuple[Connection, Connection]:
    reader, writer = multiprocessing.Pipe(duplex=False)
    return reader, writer


def _ends(send: Any, receive: Any) -> End:
    end = End()
    end.send, end.receive = send, receive
    return end
