"""pyzmq over ipc://: PUSH and PULL one way, REQ and REP for round trips."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

from tests.bench.channel.peer import End, Peer, require

_ZERO_COPY = 65536  # pyzmq's own threshold: below it copying is cheaper than keeping track of a buffer


class Pyzmq(Peer):
    """Default high-water marks (1,000 messages); bodies from 64 KiB are sent without a copy into libzmq."""

    def __init__(self, size: int) -> None:
        self.note = require("zmq", "pyzmq")
        super().__init__(size)
        self._folder = tempfile.TemporaryDirectory()

    def near(self) -> End:
        import zmq

        push, request = self._sockets(zmq.PUSH, zmq.REQ, bind=False)
        return _NearEnd(push, request, self.size)

    def far(self) -> End:
        import zmq

        pull, reply = self._sockets(zmq.PULL, zmq.REP, bind=True)
        return _FarEnd(pull, reply, self.size)

    def _sockets(self, one_way: int, round_trip: int, bind: bool) -> list[Any]:
        import zmq

        made: list[Any] = []
        context = zmq.Context()
        for kind, name in ((one_way, "one-way"), (round_trip, "round-trip")):
            made.append(context.socket(kind))
            address = f"ipc://{os.path.join(self._folder.name, name)}"
            made[-1].bind(address) if bind else made[-1].connect(address)
        return made

    def close(self) -> None:
        self._folder.cleanup()


def _sender(socket: Any, size: int) -> Callable[[bytes], object]:
    return functools.partial(socket.send, copy=size < _ZERO_COPY)


class _NearEnd(End):
    def __init__(self, push: Any, request: Any, size: int) -> None:
        self.send, self._ask, self._answer = _sender(push, size), _sender(request, size), request.recv

    def exchange(self) -> Callable[[bytes], object]:
        ask, answer = self._ask, self._answer

        def exchange(body: bytes) -> object:
            ask(body)
            return answer()

        return exchange


class _FarEnd(End):
    def __init__(self, pull: Any, reply: Any, size: int) -> None:
        self.receive, self._asked, self._reply = pull.recv, reply.recv, _sender(reply, size)

    def echo(self, count: int) -> int:
        asked, reply = self._asked, self._reply
        body = b""
        for _ in range(count):
            body = asked()
            reply(body)
        return len(body)
