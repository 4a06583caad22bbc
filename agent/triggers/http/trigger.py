"""HTTP trigger: one request in, one event out, the function's reply back.

Why: the caller waits, so this is the trigger whose own cost is felt.
Flow: sockets (listening.py) -> connection (protocol.py) -> `sink.dispatch` -> reply (response.py) -> same connection.
Promise: at most once; a request that was read is answered, also while the trigger stops. See README.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.triggers.http.listener import Listener
from agent.triggers.http.listening import address_of, own_sockets, serve, server_context
from agent.triggers.http.protocol import Connection
from agent.triggers.http.spec import HttpSpec


@trigger(HttpSpec)
async def run(spec: HttpSpec, sink: Sink) -> None:
    """Serves until cancelled, then drains."""
    context = server_context(spec.tls, sink.name)
    sockets = [item.dup() for item in sink.listeners] or own_sockets(spec, sink.name)
    address = _best_address(sockets, spec, tls=context is not None)
    made = _identity(spec.socket) if not sink.listeners else None
    listener = Listener(spec, sink)
    try:
        servers = await serve(sockets, lambda: Connection(listener), spec, context)
        try:
            async with asyncio.TaskGroup() as listener.tasks:
                for server in servers:
                    await server.start_serving()
                sink.up(address)
                try:
                    await asyncio.get_running_loop().create_future()  # until cancelled
                finally:
                    await _stop(servers, listener, sink)
        finally:
            for server in servers:
                server.close()
    finally:
        listener.close()
        for item in sockets:
            item.close()
        _unlink(spec.socket, made)


async def _stop(servers: list[asyncio.AbstractServer], listener: Listener, sink: Sink) -> None:
    """Stop accepting at once, then answer what is in hand. A successor may share the sockets."""
    for server in servers:
        server.close()
    sink.release()
    await listener.drain()


def _best_address(sockets: list[socket.socket], spec: HttpSpec, *, tls: bool) -> str:
    """What to show in status: the first TCP address, else the path of the unix socket as it was written."""
    tcp = next((item for item in sockets if item.family != socket.AF_UNIX), None)
    if tcp is None and spec.socket:  # the kernel may know it by a shorter name
        return f"unix:{spec.socket}"
    return address_of(tcp or sockets[0], tls=tls)


def _unlink(path: str, made: tuple[int, int] | None) -> None:
    """Remove the unix socket, if it is still the one we made."""
    if made is not None and _identity(path) == made:
        Path(path).unlink(missing_ok=True)


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode: is it still the socket we made?"""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
