"""The processor's end of the link to its agent: JSON objects, one a line, over an inherited socket.

See ARCHITECTURE.md for the messages. The end of it, whatever its reason, means the agent is gone: an order to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from loguru import logger

Report = dict[str, Any]

LINE_LIMIT = 1 << 20
"""Longest line in bytes, as at the agent's end: what is longer is no command of an agent."""


class Link:
    """`report` never blocks and never fails; `listen` returns at the end and never fails."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, descriptor: int) -> Link:
        """Take over the inherited socket."""
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=LINE_LIMIT)
        return cls(reader, writer)

    def report(self, message: Report) -> None:
        """Send one message."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def listen(self, on_command: Callable[[Report], None]) -> None:
        """Hand every command to `on_command` until the agent is gone. What is no JSON object is skipped."""
        with contextlib.suppress(
            OSError, ValueError
        ):  # ValueError: a line over the limit, after which nothing is in step
            while line := await self._reader.readline():
                command = _object(line)
                if command is not None:
                    _carry_out(on_command, command)

    async def flush(self) -> None:
        """Wait until what was reported is on its way."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()


def _object(line: bytes) -> Report | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _carry_out(on_command: Callable[[Report], None], command: Report) -> None:
    try:
        on_command(command)
    except Exception as error:  # a fault of ours: without the link nobody could stop this processor
        logger.opt(exception=error).error("a command of the agent failed", command=command.get("command"))
