"""The floor of every row in Python: the benchmark's own loops, with nothing sent and nothing waited for."""

from __future__ import annotations

from tests.bench.channel.peer import End, Peer


class Nothing(Peer):
    """An empty Python function for `send` and for `receive`."""

    def near(self) -> End:
        return _NothingEnd(self.size)

    def far(self) -> End:
        return _NothingEnd(self.size)


class _NothingEnd(End):
    def __init__(self, size: int) -> None:
        body = bytes(size)
        self.send = lambda body: None
        self.receive = lambda: body
