"""The listening sockets of all functions: opened here, inherited by processors.

Why: old and new version, and a processor that is started again, share one accept queue, so no connection is refused.
Flow: version about to start -> [sockets] -> `HEADRACE_LISTEN` of its processor.
Promise: a port that somebody else has is named together with who has it; nothing stays open that no version uses.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.listen import Address, addresses_of, holder, listening, open_listener
from agent.supervisor.version import Version


class Ports(Protocol):
    """Picked ports, remembered."""

    def get(self, function: str, trigger: str) -> int: ...
    def set(self, function: str, trigger: str, port: int) -> None: ...


class AddressTaken(SourceUnavailable):
    """Somebody listens there already. `function` names whose it is when it is ours."""

    code = "address.taken"

    def __init__(self, what: str, *, function: str = "", where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.function = function


Key = tuple[str, str, Address]
"""Function, trigger (empty where the address alone identifies the socket), address as asked for."""


class Sockets:
    """`calls` is the folder of the unix sockets through which functions call one another."""

    def __init__(self, ports: Ports, calls: Path) -> None:
        self._ports = ports
        self._calls = calls
        self._open: dict[Key, socket.socket] = {}

    def open(self, version: Version) -> list[tuple[str, int]]:
        """Trigger names and descriptors for this version: what is open already, and what it needs besides.

        Raises AddressTaken (try again later), SpecError, or SourceUnavailable.
        """
        found = []
        for trigger, key in self._wanted(version):
            if key not in self._open:
                self._open[key] = self._listen(key, trigger, version)
            found.append((trigger, self._open[key].fileno()))
        return found

    def keep(self, function: str, versions: Iterable[Version]) -> None:
        """Close those sockets of a function that none of the versions uses."""
        used: set[Key] = set()
        for version in versions:
            with contextlib.suppress(SpecError):  # its sockets were never opened
                used.update(key for _, key in self._wanted(version))
        for key in [key for key in self._open if key[0] == function and key not in used]:
            self._close(key)

    def close(self) -> None:
        for key in list(self._open):
            self._close(key)

    def _close(self, key: Key) -> None:
        self._open.pop(key).close()
        path = key[2].path
        if path and not any(path == other[2].path for other in self._open):
            with contextlib.suppress(OSError):
                Path(path).unlink()

    def _wanted(self, version: Version) -> list[tuple[str, Key]]:
        wanted: list[tuple[str, Key]] = []
        for name, spec in version.triggers.items():
            for address in addresses_of(spec) if listening(spec) else ():
                trigger = name if not (address.port or address.path) else ""
                wanted.append((name, (version.name, trigger, address)))
        if wanted:
            wanted.append((wanted[0][0], (version.name, "", Address(path=str(self._calls / f"{version.name}.sock")))))
        return wanted

    def _listen(self, key: Key, trigger: str, version: Version) -> socket.socket:
        function, picked, address = key
        try:
            if not picked:
                return self._same_one(function, address) or open_listener(address)
            return self._pick(function, picked, address)
        except OSError as error:
            where = f"{version.origin}: triggers.{trigger}"
            if error.errno == errno.EADDRINUSE:
                raise self._taken(address, where) from error
            raise SourceUnavailable(
                f"cannot listen on {address}: {error.strerror}", where=where, fix=_advice(error)
            ) from error

    def _same_one(self, function: str, address: Address) -> socket.socket | None:
        """The function has that very address already, as a picked one: its connections must not be refused."""
        for (owner, _, asked), sock in self._open.items():
            if owner == function and asked.host == address.host and not address.path and _same(asked, sock, address):
                return sock.dup()
        return None

    def _pick(self, function: str, trigger: str, address: Address) -> socket.socket:
        """The port picked the last time where it is free, else another."""
        if remembered := self._ports.get(function, trigger):
            with contextlib.suppress(OSError):
                return open_listener(Address(address.host, remembered))
        sock = open_listener(address)
        self._ports.set(function, trigger, sock.getsockname()[1])
        return sock

    def _taken(self, address: Address, where: str) -> AddressTaken:
        ours = next((key[0] for key, sock in self._open.items() if _same(key[2], sock, address)), "")
        owner = f"function {ours!r}" if ours else holder(address)
        return AddressTaken(
            f"{address} is taken by {owner}", function=ours, where=where, fix="give one of them another port"
        )


def _same(open_: Address, sock: socket.socket, wanted: Address) -> bool:
    if wanted.path or open_.path:
        return wanted.path == open_.path
    return int(sock.getsockname()[1]) == wanted.port


def _advice(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this device has that address now"
    return ""
