"""A real mosquitto on a free port, in a folder of its own: plain, with a password, or with TLS and client certificates.

`max_queued_messages 0`: with mosquitto's default of 1000 a slow subscriber silently loses QoS 1 messages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.eventually import wait_until

BINARY = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
ENV = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}


def require_mosquitto() -> None:
    """Skips where there is no broker; fails in CI."""
    if BINARY is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("mosquitto is not installed")


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker. `start` returns once it accepts connections; `stop` (SIGTERM) and `kill` once it is gone."""

    def __init__(self, folder: Path, *, password: str = "", tls: bool = False, extra: str = "") -> None:
        """`password`: required of user `agent`. `tls`: TLS listener that asks for a client certificate."""
        self.folder = folder
        self.port = free_port()
        self.tls = tls
        self.url = f"{'ssl' if tls else 'tcp'}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([*self._lines(password), extra, ""]))

    def _lines(self, password: str) -> Iterator[str]:
        yield f"listener {self.port} 127.0.0.1"
        yield f"allow_anonymous {'false' if password else 'true'}"
        yield from ("persistence true", f"persistence_location {self.folder}/", "max_queued_messages 0", "log_type all")
        yield from ("log_timestamp_format %H:%M:%S", "set_tcp_nodelay true")
        if os.geteuid() == 0:
            yield "user root"
        if password:
            users = self.folder / "users"
            command = ["mosquitto_passwd", "-b", "-c", str(users), "agent", password]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
            yield f"password_file {users}"
        if self.tls:
            make_certificates(self.folder)
            yield f"cafile {self.folder}/ca.crt"
            yield f"certfile {self.folder}/server.crt"
            yield f"keyfile {self.folder}/server.key"
            yield "require_certificate true"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the broker has written."""
        return (self.folder / "broker.log").read_text()

    def start(self) -> Mosquitto:
        assert BINARY is not None
        with (self.folder / "broker.log").open("ab") as output:
            command = [BINARY, "-c", str(self._config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENV)
        wait_until(self._accepts)
        return self

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """SIGTERM: it writes its store and closes."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: whatever it did not write is gone."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Alive and silent, as a half-open connection looks."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def save(self) -> None:
        """Have it write its store; returns once the file on disk is a new one."""
        store = self.folder / "mosquitto.db"
        before = store.stat().st_mtime_ns if store.exists() else 0
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(lambda: store.exists() and store.stat().st_mtime_ns > before)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            if number == signal.SIGTERM:
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(20)
            self._process = None

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._end(signal.SIGKILL)


def make_certificates(folder: Path) -> None:
    """`ca`, `server` (for 127.0.0.1 and localhost) and `client`, each with .crt and .key."""
    authority = ["-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"]
    _openssl(folder, "req", *_NEW_KEY, *authority)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        _openssl(folder, "req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ["-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        _openssl(folder, "x509", "-req", *signing, "-extfile", "names", "-out", f"{name}.crt")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
