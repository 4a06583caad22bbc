"""The agent's end of the link to one processor: JSON objects, one a line, over a unix stream socket.

Why: state changes must arrive without asking, and end-of-file must tell either side that the other is gone.
Flow: processor <-> [link] <-> supervised function. Messages are listed in ARCHITECTURE.md.
Promise: a processor that writes nonsense, floods or does not read is reported as broken; it never blocks the agent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec

LINE_LIMIT = 1 << 20
"""Longest line in bytes; statistics of a function with hundreds of triggers stay far below it."""

Message = dict[str, Any]


class Link:
    """Calls `on_message` for every line, and `on_end` once, with a reason that is empty for a plain end-of-file."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message], None], on_end: Callable[[str], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._unread = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.closed = False

    def send(self, message: Message) -> None:
        """Messages are small and the socket's buffer is not: one that does not fit means nobody reads."""
        if self.closed:
            return
        line = msgspec.json.encode(message) + b"\n"
        try:
            sent = self._socket.send(line)
        except OSError as error:
            self._end(f"cannot write to the processor: {error.strerror}")
            return
        if sent < len(line):
            self._end("the processor does not read its link")

    def close(self) -> None:
        """End the link; `on_end` is not called."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def drain(self) -> None:
        """Read what a processor said before it ended."""
        while not self.closed and self._receive():
            pass

    def _readable(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end("")
            return False
        self._unread += data
        self._split()
        return True

    def _split(self) -> None:
        *lines, rest = self._unread.split(b"\n")
        self._unread = bytearray(rest)
        for line in lines:
            self._take(bytes(line))
        if len(self._unread) > LINE_LIMIT:
            self._end("the processor wrote a line without end")

    def _take(self, line: bytes) -> None:
        if self.closed:
            return
        try:
            message = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._end("the processor wrote a line that is not a JSON object")
            return
        self._on_message(message)

    def _end(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._on_end(why)
