"""Listening sockets and TLS of an http trigger: opened from the spec, or inherited from the agent.

Flow: spec or `sink.listeners` -> [this] -> servers whose connections belong to a Listener. Promise: an inherited socket
is only duplicated; closing our servers never stops a successor that accepts from the same queue.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.listen import Address, addresses_of, holder, open_listener
from agent.triggers.http.spec import HttpSpec, Tls


def server_context(tls: Tls | None, trigger: str) -> ssl.SSLContext | None:
    """The TLS context of the files named, read once. Raises SpecError naming the file that cannot be used."""
    if tls is None:
        return None
    for key, path in (("cert", tls.cert), ("key", tls.key), ("clientCa", tls.client_ca)):
        if path:
            _check_readable(path, f"trigger {trigger}: tls.{key}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    where = f"trigger {trigger}: tls"
    try:
        # the empty password: an encrypted key is an error, not a question on the terminal
        context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SpecError(
            f"{tls.cert} and {tls.key} are not a certificate and its key: {error}",
            where=where,
            fix="give PEM files; the key without a pass phrase, the certificate first in its chain",
        ) from error
    if tls.client_ca:
        try:
            context.load_verify_locations(tls.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise SpecError(
                f"{tls.client_ca} holds no certificate: {error}", where=where, fix="give a PEM file"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_readable(path: str, where: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        fix = "give a file that the processor's user may read"
        raise SpecError(f"{path} cannot be read: {error.strerror}", where=where, fix=fix) from error


def own_sockets(spec: HttpSpec, trigger: str) -> list[socket.socket]:
    """Listening sockets for the spec's addresses; the caller closes them. Raises SourceUnavailable or SpecError."""
    opened: list[socket.socket] = []
    try:
        for address in addresses_of(spec):
            opened.append(_listening(address, spec.backlog, f"trigger {trigger}"))
    except BaseException:
        for item in opened:
            item.close()
        raise
    return opened


def _listening(address: Address, backlog: int, where: str) -> socket.socket:
    try:
        return open_listener(address, backlog)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = f"it is taken by {holder(address)}" if taken else error.strerror or str(error)
        raise SourceUnavailable(f"cannot listen on {address}: {why}", where=where, fix=_fix(error, address)) from error


def _fix(error: OSError, address: Address) -> str:
    if address.path:
        return "give another path, in a folder that exists and may be written"
    return {
        errno.EADDRINUSE: "give another `port`, or stop the program that holds it",
        errno.EACCES: "give a `port` from 1024 on, or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "give a `host` that is an address of this device",
    }.get(error.errno or 0, "check `host` and `port`")


async def serve(
    sockets: list[socket.socket],
    make: Callable[[], asyncio.Protocol],
    spec: HttpSpec,
    context: ssl.SSLContext | None,
) -> list[asyncio.AbstractServer]:
    """One server a socket, not accepting yet. The servers own the sockets from now on; TLS is spoken over TCP only."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.AbstractServer] = []
    for item in sockets:
        item.setblocking(False)
        options: dict[str, Any] = {"sock": item, "backlog": spec.backlog, "start_serving": False}
        if item.family == socket.AF_UNIX:
            if sys.version_info >= (3, 13):
                options["cleanup_socket"] = False  # the path may belong to the agent
            servers.append(await loop.create_unix_server(make, **options))
        else:
            if context is not None:
                options |= {"ssl": context, "ssl_handshake_timeout": max(1.0, spec.request_timeout)}
            servers.append(await loop.create_server(make, **options))
    return servers


def address_of(listening: socket.socket, *, tls: bool) -> str:
    """The address as a URL (`unix:PATH` for a unix socket)."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
