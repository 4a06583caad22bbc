"""Serial lines without hardware: a socat pair of ptys, and a bare pty whose master the test holds.

Neither has a speed, parity or modem lines. Both can be torn down, which hangs up whoever has the near end open, and
built again under the same or another name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tty
from pathlib import Path
from types import TracebackType

from tests.support.eventually import wait_until

SOCAT = shutil.which("socat")


class SocatPair:
    """Two ptys joined by socat. `near` is for the code under test; the test reads and writes the far one."""

    def __init__(self, folder: Path, near: str = "near", far: str = "far") -> None:
        self.near, self.far = folder / near, folder / far
        self._process: subprocess.Popen[bytes] | None = None
        self._fd = -1

    def build(self, near: str = "") -> SocatPair:
        """Make the pair, the near end under another name if one is given; ready when this returns."""
        self.near = self.near.with_name(near or self.near.name)
        ends = [f"pty,raw,echo=0,link={end}" for end in (self.near, self.far)]
        self._process = subprocess.Popen(["socat", *ends], stderr=subprocess.DEVNULL)
        wait_until(lambda: self.near.exists() and self.far.exists(), every_s=0.001)
        self._fd = os.open(self.far, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        return self

    def write(self, data: bytes) -> None:
        """Raises BlockingIOError when nobody reads the near end."""
        while data:
            data = data[os.write(self._fd, data) :]

    def read(self) -> bytes:
        """What the code under test has written; may be nothing."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._fd, 65536)
        return b""

    def tear_down(self) -> None:
        """Both ends are gone when this returns."""
        if self._process is not None:
            os.close(self._fd)
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:  # once in a thousand times socat sleeps through it
                self._process.kill()
                self._process.wait()
            for end in (self.near, self.far):
                end.unlink(missing_ok=True)
            self._process = None

    def __enter__(self) -> SocatPair:
        return self if self._process is not None else self.build()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tear_down()


class BarePty:
    """A pty with a symbolic link as its name, without any program: os.openpty, raw, the master non-blocking."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self._master = -1

    def build(self) -> BarePty:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        os.symlink(os.ttyname(slave), self.link)
        # The name stays good for as long as the master is open, whoever has it open meanwhile.
        os.close(slave)
        return self

    def write(self, data: bytes) -> int:
        """Bytes taken; 0 when the other side does not read."""
        with contextlib.suppress(BlockingIOError):
            return os.write(self._master, data)
        return 0

    def read(self) -> bytes:
        """What the code under test has written; may be nothing."""
        with contextlib.suppress(BlockingIOError, OSError):
            return os.read(self._master, 65536)
        return b""

    def tear_down(self) -> None:
        """Hang up and take the name away."""
        if self._master >= 0:
            os.close(self._master)
            os.unlink(self.link)
            self._master = -1

    def __enter__(self) -> BarePty:
        return self if self._master >= 0 else self.build()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tear_down()
