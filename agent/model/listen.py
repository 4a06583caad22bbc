"""Where a trigger listens, as the agent that opens the sockets reads it, and how such a socket is opened.

Flow: spec of a trigger -> [listen] -> sockets of the supervisor; a trigger without an agent may open its own with it.
Promise: reading opens nothing and asks no name server; opening never takes a socket that somebody listens on.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from typing import Protocol, cast

from agent.model.errors import SpecError
from agent.model.spec import TriggerSpec

BACKLOG = 1024
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (port 0: pick one), or the path of a unix socket, with its mode, when `path` is not empty."""

    host: str = ""
    port: int = 0
    path: str = ""
    mode: int = 0o660

    @property
    def family(self) -> socket.AddressFamily:
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listening(Protocol):
    """What the spec of a trigger offers that accepts connections on sockets the agent opens for it."""

    name: str
    socket: str
    socket_mode: str

    def address(self) -> tuple[str, int] | None:
        """Host and port, or None when only the unix socket is wanted. Raises SpecError."""


def listening(trigger: TriggerSpec) -> bool:
    """Does this trigger accept connections on sockets that the agent opens for it?"""
    return trigger.kind.lower() == "http"


def addresses_of(trigger: TriggerSpec) -> list[Address]:
    """All addresses a listening trigger asks for. SpecError for a host that only a name server could resolve."""
    spec = cast(Listening, trigger)
    tcp = spec.address()
    found = [] if tcp is None else [Address(_numeric(tcp[0], trigger.name), tcp[1])]
    return [*found, Address(path=spec.socket, mode=int(spec.socket_mode, 8))] if spec.socket else found


def address_of(trigger: TriggerSpec) -> Address:
    """The first of them, for a caller that wants one."""
    return addresses_of(trigger)[0]


def _numeric(host: str, trigger: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise SpecError(
            f"{host!r} is not an IP address",
            where=f"triggers.{trigger}.host",
            fix="write an address of this device, 0.0.0.0 for all of them, or 127.0.0.1 for this device only",
        ) from None


def open_listener(address: Address, backlog: int = BACKLOG) -> socket.socket:
    """A listening, non-blocking socket. A stale unix socket is replaced. Raises OSError: EADDRINUSE if taken."""
    sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if address.path:
            _bind_unix(sock, address)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address.host != "::"))
            sock.bind((address.host, address.port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(sock: socket.socket, address: Address) -> None:
    """A path of any length: the kernel takes 107 bytes, so the folder is named by an open descriptor."""
    folder, name = os.path.split(address.path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{descriptor}/{name}"
        _remove_stale(short)
        sock.bind(short)
        os.chmod(short, address.mode)
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name which is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(path)


def holder(address: Address) -> str:
    """Who listens there, as far as we may see. For error texts only: it walks through /proc."""
    sockets: set[str] = set() if address.path else _sockets_on(address.port)
    for pid in filter(str.isdecimal, os.listdir("/proc") if sockets else ()):
        with contextlib.suppress(OSError):  # it is somebody else's, or it has ended
            if sockets & _open_in(pid):
                return f"process {pid} ({_text(f'/proc/{pid}/comm').strip()})"
    return "another process"


def _open_in(pid: str) -> set[str]:
    """What the process has open, as /proc names it."""
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def _sockets_on(port: int) -> set[str]:
    """The sockets that listen on that TCP port, as /proc names what is open."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for fields in map(str.split, _text(table).splitlines()):
                if fields[1].endswith(f":{port:04X}") and fields[3] == _LISTENING:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()
