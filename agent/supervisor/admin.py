"""The admin listener: health, metrics and statistics over the smallest HTTP that monitoring tools speak.

Why: a probe must work when everything else is broken, so no framework stands in it. Loopback by default, read only.
Flow: probe, Prometheus, `curl` -> [admin] -> supervisor.
Promise: one GET a connection, at most 8 KiB of header within 5 s, at most 32 connections at a time.
Nobody logs in here, so what functions replied is shown only where the configuration says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from agent.model.errors import SourceUnavailable
from agent.model.listen import Address, open_listener
from agent.supervisor.metrics import exposition

HEADER_LIMIT = 8192
HEADER_TIMEOUT_S = 5.0
CONNECTIONS = 32

Answer = tuple[int, str, bytes]
"""Status, content type, body."""

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
TEXT = "text/plain; charset=utf-8"


class Subject(Protocol):
    """What is reported on; see `Supervisor`."""

    @property
    def stopping(self) -> bool: ...

    async def statistics(self) -> dict[str, Any]: ...
    def unready(self) -> dict[str, str]: ...


class Reported:
    """A subject that can be exchanged while the listener stays open."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @property
    def stopping(self) -> bool:
        return self.subject.stopping

    async def statistics(self) -> dict[str, Any]:
        return await self.subject.statistics()

    def unready(self) -> dict[str, str]:
        return self.subject.unready()


@asynccontextmanager
async def open_admin(host: str, port: int, subject: Subject, *, show_results: bool = False) -> Any:
    """Listens while the context lasts; gives the address as (host, port). Raises SourceUnavailable."""
    pages = pages_of(subject, show_results)
    open_: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_) >= CONNECTIONS:
            writer.transport.abort()
            return
        open_.add(writer)
        try:
            async with asyncio.timeout(2 * HEADER_TIMEOUT_S):
                writer.write(_response(*await _answer(reader, pages)))
                await writer.drain()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()
        finally:
            open_.discard(writer)
            writer.close()

    try:
        sock = open_listener(Address(host, port))
    except OSError as error:
        raise SourceUnavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            where="admin",
            fix="set admin.port to another port, or to 0 to have one picked",
        ) from error
    server = await asyncio.start_server(serve, sock=sock, limit=HEADER_LIMIT)
    try:
        yield sock.getsockname()[:2]
    finally:
        server.close()
        for writer in list(open_):
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, pages: dict[str, Callable[[], Awaitable[Answer]]]) -> Answer:
    try:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return 400, TEXT, b"header too large\n"
    except asyncio.IncompleteReadError as error:
        raise ConnectionError from error
    method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    path, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        return 400, TEXT, b"not HTTP/1.x\n"
    if method != "GET":
        return 405, TEXT, b"only GET\n"
    page = pages.get(path.partition("?")[0])
    return await page() if page else (404, TEXT, f"known: {' '.join(pages)}\n".encode())


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def pages_of(subject: Subject, show_results: bool) -> dict[str, Callable[[], Awaitable[Answer]]]:
    """What is answered under which path."""

    async def livez() -> Answer:
        return 200, TEXT, b"ok\n"

    async def readyz() -> Answer:
        unready = subject.unready()
        lines = "".join(f"{name}: {state}\n" for name, state in unready.items())
        if subject.stopping:
            return 503, TEXT, b"stopping\n"
        return (503, TEXT, lines.encode()) if unready else (200, TEXT, b"ok\n")

    async def metrics() -> Answer:
        return 200, "text/plain; version=0.0.4; charset=utf-8", exposition(await subject.statistics()).encode()

    async def statistics() -> Answer:
        found = await subject.statistics()
        return 200, "application/json", msgspec.json.encode(found if show_results else _without_results(found))

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics, "/statistics": statistics}


def _without_results(statistics: dict[str, Any]) -> dict[str, Any]:
    """Without the beginnings of what the functions replied."""
    functions = {}
    for name, function in statistics["functions"].items():
        triggers = {trigger: counted | {"last": ""} for trigger, counted in function["triggers"].items()}
        functions[name] = function | {"triggers": triggers}
    return statistics | {"functions": functions}
