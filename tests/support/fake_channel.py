"""A WorkerChannel without shared memory: the same methods in plain Python, filled by the test.

`protocol` is what stands for the extension module. When nothing is left, `wait` and `awake` say the processor is gone.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

Text = str | bytes
PARTS = ("content_type", "method", "path", "url", "topic", "id", "type", "type_version", "version", "kind", "name")


class RingClosed(Exception):
    pass


class RingBroken(Exception):
    pass


protocol = SimpleNamespace(
    EVENT=1,
    REPLY=2,
    LOG=3,
    STOP=4,
    DRAIN=5,
    READY=6,
    FAILED=7,
    DRAINED=8,
    MORE=1,
    BATCH=2,
    LARGE=4,
    JSON_BODY=8,
    RingClosed=RingClosed,
    RingBroken=RingBroken,
)


def _raw(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _pairs(pairs: Sequence[tuple[Text, Text]]) -> bytes:
    raw = [(_raw(name), _raw(value)) for name, value in pairs]
    return b"".join(struct.pack("<II", len(name), len(value)) + name + value for name, value in raw)


def head(
    body: bytes = b"",
    *,
    timestamp_ns: int = 0,
    offset: int = 0,
    shard_id: int = -1,
    num_shards: int = 0,
    headers: Sequence[tuple[Text, Text]] = (),
    fields: bytes | Sequence[tuple[Text, Text]] = b"",
    **texts: Text,
) -> bytes:
    """An event's head, laid out as shmem/PROTOCOL.md says. `texts`: the names in PARTS."""
    raw_query = isinstance(fields, bytes) and fields
    parts = [_raw(texts.pop(name, "")) for name in PARTS]
    assert not texts, texts
    parts += [_pairs(headers), fields if isinstance(fields, bytes) else _pairs(fields)]
    ends = [sum(len(part) for part in parts[: index + 1]) for index in range(13)]
    count = 0xFFFFFFFF if raw_query else len(fields)
    fixed = struct.pack(
        "<qqiIIII13I", timestamp_ns, offset, shard_id, num_shards, len(body), len(headers), count, *ends
    )
    return fixed + b"".join(parts)


class FakeChannel:
    """Implements `shmem._channel.WorkerChannel`; records what the worker says in `replies`, `logs` and `controls`."""

    salt = 0x0123456789ABCDEF

    def __init__(self) -> None:
        self.replies: list[tuple[int, int, str, Any, Any]] = []
        self.logs: list[tuple[int, int, str, str]] = []
        self.controls: list[tuple[int, bytes]] = []
        self.bodies_copied = 0
        self.refuse: list[Exception] = []  # raised by the next replies
        self.closed = False  # end-of-file on the doorbell
        self._queue: deque[tuple[int, int, int, bytes, bytes]] = deque()
        self._body: bytearray | None = None
        self._next_id = 0
        self.fd, self._bell = os.pipe()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._bell)

    # the test's side

    def put(self, body: bytes = b"", flags: int = 0, **event: Any) -> int:
        self._next_id += 1
        self._queue.append((protocol.EVENT, flags, self._next_id, head(body, **event), body))
        os.write(self._bell, b"!")
        return self._next_id

    def put_control(self, kind: int) -> None:
        self._queue.append((kind, 0, 0, b"", b""))
        os.write(self._bell, b"!")

    def hang_up(self) -> None:
        self.closed = True
        os.write(self._bell, b"!")

    # the worker's side

    def take(self) -> tuple[int, int, int, bytes] | None:
        assert self._body is None, "release the record in hand before taking the next"
        if not self._queue:
            return None
        *record, body = self._queue.popleft()
        self._body = bytearray(body)
        return tuple(record)  # type: ignore[return-value]

    def _in_hand(self) -> bytearray:
        if self._body is None:
            raise RuntimeError("no record is begun: its body is gone")
        return self._body

    def body(self) -> bytes:
        self.bodies_copied += 1
        return bytes(self._in_hand())

    def view(self) -> memoryview:
        return memoryview(self._in_hand()).toreadonly()

    def release(self) -> None:
        if self._body is not None:
            self._body.append(0)  # BufferError while a view is alive, as in the real one
            self._body = None

    def wait(self, timeout_s: float = -1.0) -> bool:
        if not self._queue:
            raise RingClosed("nothing left")
        return True

    def sleep(self) -> bool:
        return not self._queue

    def awake(self) -> None:
        os.read(self.fd, 4096)
        if self.closed and not self._queue:
            raise RingClosed("the other side of the channel is gone")

    def reply(self, id: int, status: int, content_type: str, headers: Any, body: Any) -> None:
        if self.refuse:
            raise self.refuse.pop()
        assert type(status) is int and isinstance(content_type, str)
        assert self._body is not None or id  # replies come before the release, or carry an event of their own
        self.replies.append((id, status, content_type, headers, bytes(body) if isinstance(body, memoryview) else body))

    def log(self, id: int, level: int, time_ns: int, message: str, fields: str) -> None:
        self.logs.append((id, level, message, fields))

    def control(self, kind: int, payload: bytes = b"") -> None:
        self.controls.append((kind, payload))
