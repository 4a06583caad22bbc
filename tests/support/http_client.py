"""A raw HTTP/1 client for tests: sends the bytes it is told, reads replies by their framing alone."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field


@dataclass
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class RawClient:
    """One connection. Use as `async with RawClient(port) as client` (or a path for a unix socket)."""

    def __init__(self, address: int | str, ssl: object = None) -> None:
        self._address = address
        self._ssl = ssl

    async def __aenter__(self) -> RawClient:
        if isinstance(self._address, int):
            opening = asyncio.open_connection("127.0.0.1", self._address, ssl=self._ssl)  # type: ignore[arg-type]
        else:
            opening = asyncio.open_unix_connection(self._address)
        self.reader, self.writer = await opening
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head: bool = False, within_s: float = 10) -> Reply:
        """The next final reply."""
        async with asyncio.timeout(within_s):
            return await self._reply(head)

    async def _reply(self, head: bool) -> Reply:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        reply = Reply(int(lines[0].split()[1]))
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            reply.headers[name.lower()] = value
        if not head and reply.status >= 200:
            reply.body = await self.reader.readexactly(int(reply.headers.get("content-length", "0")))
        return reply

    async def ask(self, data: bytes, **how: bool) -> Reply:
        self.send(data)
        return await self.reply(**how)

    async def ended(self, within_s: float = 10) -> bytes:
        """What still comes until the server closes its side."""
        async with asyncio.timeout(within_s):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""
