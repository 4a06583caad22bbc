"""HTTP/1.1 over a unix socket. Apart from `platform` so that only functions that call others pay for http.client."""

from __future__ import annotations

import os
import socket
from http.client import HTTPConnection

_LONGEST_PATH = 107  # bytes, of sockaddr_un


class UnixConnection(HTTPConnection):
    """Speaks to the listener at `path` whatever the host name says."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            _connect(connection, self._path)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


def connect(path: str, timeout: float | None) -> UnixConnection:
    """A connected client. Raises OSError at once when nobody listens there."""
    connection = UnixConnection(path, timeout)
    connection.connect()
    return connection


def _connect(connection: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        connection.connect(path)
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
