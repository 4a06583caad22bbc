"""Both ends of a channel in this process, for tests of the channel itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from shmem import _channel
from shmem.segment import Segment

NO_TEXTS = ("",) * 11


@dataclass
class Pair:
    """`processor` and `worker` ends, the segment, and the descriptors by what they are for."""

    segment: Segment
    processor: _channel.ProcessorChannel
    worker: _channel.WorkerChannel
    ring_worker: int
    hear_worker: int
    ends_of_worker: list[int]

    def put(self, id: int, body: bytes = b"", flags: int = 0, **texts: str) -> int:
        """Put an event with default head values."""
        names = ["content_type", "method", "path", "url", "topic", "id", "type", "type_version", "version"]
        parts = tuple(texts.get(name, "") for name in [*names, "kind", "name"])
        return self.processor.put_event(id, flags, 0, 0, -1, 0, parts, (), b"", body)

    def worker_gone(self) -> None:
        """What the kernel does when the worker's process ends."""
        while self.ends_of_worker:
            os.close(self.ends_of_worker.pop())


@contextlib.contextmanager
def channel_pair(ring_bytes: int = 65536) -> Iterator[Pair]:
    """Open both ends; everything is closed at the end."""
    segment = Segment(_channel.HEADER_BYTES + 2 * ring_bytes)
    event_read, event_write = os.pipe()
    reply_read, reply_write = os.pipe()
    os.set_blocking(event_write, False)
    os.set_blocking(reply_read, False)
    processor = _channel.ProcessorChannel(
        segment.buffer, segment.name, ring_bytes, ring_bytes, event_write, reply_read, 7
    )
    worker = _channel.WorkerChannel(segment.name, event_read, reply_write)
    pair = Pair(segment, processor, worker, event_write, reply_read, [event_read, reply_write])
    try:
        yield pair
    finally:
        processor.close()
        segment.close()
        pair.worker_gone()
        os.close(event_write)
        os.close(reply_read)
