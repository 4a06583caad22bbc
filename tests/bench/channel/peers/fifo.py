"""faster-fifo: a ring in shared memory behind a process-shared mutex and condition variable, for Python."""

from __future__ import annotations

import importlib
from typing import Any

from tests.bench.channel.peer import End, Peer, require

_BYTES = 4 << 20  # room for some messages of the largest size


class FasterFifo(Peer):
    """`faster_fifo.Queue` carrying bytes as they are (its default is pickle, which is slower)."""

    def __init__(self, size: int) -> None:
        self.note = require("faster_fifo", "faster-fifo")
        fifo: Any = importlib.import_module("faster_fifo")
        super().__init__(size)
        self.there: Any = fifo.Queue(_BYTES, loads=bytes, dumps=bytes)
        self.back: Any = fifo.Queue(_BYTES, loads=bytes, dumps=bytes)

    def near(self) -> End:
        return _FifoEnd(self.there, self.back)

    def far(self) -> End:
        return _FifoEnd(self.back, self.there)


class _FifoEnd(End):
    def __init__(self, out: Any, incoming: Any) -> None:
        self.send, self.receive = out.put, incoming.get
