"""The processor's side of the worker nursery: forks Python workers in a millisecond. See runtimes/python/nursery.py.

Promise: `fork` gives the pid of a worker whose end will be told once; when the nursery is gone, it raises OSError and
every worker it had is told as killed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

LARGEST = 1 << 18


class WorkerNursery:
    """Takes over the inherited socket. Use it on the event loop only."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._heard)
        self._asked: dict[int, tuple[asyncio.Future[int], Callable[[int], None]]] = {}
        self._exits: dict[int, Callable[[int], None]] = {}
        self._unwanted: set[int] = set()  # asked for by who does not wait any more
        self._number = 0
        self._open = True

    async def fork(
        self, env: dict[str, str], cwd: str, descriptors: Sequence[int], on_exit: Callable[[int], None]
    ) -> int:
        """Pid of a new worker. `descriptors`: event bell, reply bell, stdout, stderr. `on_exit` gets its exit status.

        Raises OSError when the nursery is gone or the request too large: start the worker by command line then.
        """
        if not self._open:
            raise BrokenPipeError("the worker nursery is gone")
        self._number = number = self._number + 1
        message = json.dumps({"id": number, "env": env, "cwd": cwd}).encode()
        if len(message) > LARGEST:
            raise OSError(errno.EMSGSIZE, "the environment is too large to be handed to the nursery")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._socket.sendmsg([message], ancillary)
        asked: asyncio.Future[int] = self._loop.create_future()
        self._asked[number] = asked, on_exit
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            if not asked.done():
                self._unwanted.add(number)
            elif asked.exception() is None:
                _end(asked.result())
            raise

    def close(self) -> None:
        """The nursery sees the end and kills what is left of our workers."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _heard(self) -> None:
        try:
            message = self._socket.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lost()
            return
        said: dict[str, Any] = json.loads(message)
        if "id" in said:
            self._answered(said["id"], said.get("pid"), said.get("error", ""))
        elif on_exit := self._exits.pop(said["pid"], None):
            on_exit(said["status"])

    def _answered(self, number: int, pid: int | None, error: str) -> None:
        asked, on_exit = self._asked.pop(number)
        if pid is None:
            asked.set_exception(OSError(error))
            asked.exception()  # looked at, whether or not somebody waits
        elif number in self._unwanted:
            self._unwanted.remove(number)
            _end(pid)
        else:
            self._exits[pid] = on_exit
            asked.set_result(pid)

    def _lost(self) -> None:
        self.close()
        for asked, _ in self._asked.values():
            asked.set_exception(BrokenPipeError("the worker nursery is gone"))
        for on_exit in list(self._exits.values()):
            on_exit(-signal.SIGKILL)
        self._exits.clear()


def _end(pid: int) -> None:
    """It leads a process group by the time its number is told."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
