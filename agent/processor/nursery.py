"""The processor's side of the worker nursery: forks Python workers in a millisecond. See runtimes/python/nursery.py.

Promise: `fork` gives the pid of a worker whose end will be told once; when the nursery is gone, it raises OSError and
every worker it had is told as killed.
"""

from __future__ import annotations

import array
import asyncio
import json
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
        self._number += 1
        message = json.dumps({"id": self._number, "env": env, "cwd": cwd}).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._socket.sendmsg([message], ancillary)
        asked: asyncio.Future[int] = self._loop.create_future()
        self._asked[self._number] = asked, on_exit
        return await asyncio.shield(asked)

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
        pid = said["pid"]
        if "id" in said:
            asked, self._exits[pid] = self._asked.pop(said["id"])
            asked.set_result(pid)
        elif on_exit := self._exits.pop(pid, None):
            on_exit(said["status"])

    def _lost(self) -> None:
        self.close()
        for asked, _ in self._asked.values():
            asked.set_exception(BrokenPipeError("the worker nursery is gone"))
        for on_exit in list(self._exits.values()):
            on_exit(-signal.SIGKILL)
        self._exits.clear()
