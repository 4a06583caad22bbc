"""The processor's end of the link to its agent: JSON objects, one a line, over an inherited socket.

See ARCHITECTURE.md for the messages. End-of-file means the agent is gone, which is an order to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

Report = dict[str, Any]


class Link:
    """`report` never blocks and never fails; `listen` returns at end-of-file."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, descriptor: int) -> Link:
        """Take over the inherited socket."""
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
        return cls(reader, writer)

    def report(self, message: Report) -> None:
        """Send one message."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def listen(self, on_command: Callable[[Report], None]) -> None:
        """Hand every command to `on_command` until the agent is gone."""
        with contextlib.suppress(OSError):
            while line := await self._reader.readline():
                with contextlib.suppress(ValueError):
                    on_command(json.loads(line))

    async def flush(self) -> None:
        """Wait until what was reported is on its way."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()
