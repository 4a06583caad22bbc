"""Ports that were picked for triggers which asked for "any": remembered, so that an address survives restarts.

Flow: supervisor opens a listening socket -> [ports] -> `<state-dir>/ports.json`.
Promise: an unreadable file is set aside (`ports.json.bad`) and never stops the start.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from loguru import logger

from agent.store import atomic


class RememberedPorts:
    """Port by function and trigger. Written when one changes, which is rare."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports = _read(path)

    def get(self, function: str, trigger: str) -> int:
        """The port picked before, or 0."""
        return self._ports.get(f"{function}/{trigger}", 0)

    def set(self, function: str, trigger: str, port: int) -> None:
        """Remember; a disk that is full or read-only costs the memory of it, not the function."""
        key = f"{function}/{trigger}"
        if self._ports.get(key) == port:
            return
        self._ports[key] = port
        try:
            atomic.write(self._path, msgspec.json.encode(self._ports))
        except OSError as error:
            logger.warning("picked ports cannot be remembered", path=str(self._path), error=str(error))


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError) as error:
        logger.warning("remembered ports are unreadable and were set aside", path=str(path), error=str(error))
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name + ".bad"))
        return {}
