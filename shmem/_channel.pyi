"""The C core's Python face. See PROTOCOL.md for what the bytes mean."""

from collections.abc import Sequence
from typing import Final

EVENT: Final = 1
REPLY: Final = 2
LOG: Final = 3
STOP: Final = 4  # processor -> worker: run the termination callback, then exit 0
DRAIN: Final = 5  # processor -> worker: run the drain callback, answer DRAINED
READY: Final = 6  # worker -> processor: the handler is loaded, init_context has returned
FAILED: Final = 7  # worker -> processor: cannot start, the payload is the reason as UTF-8
DRAINED: Final = 8  # worker -> processor
BATCH_END: Final = 10  # processor -> worker: nothing follows the last event that had MORE
PUBLISH: Final = 9  # worker -> processor: what a handler sends through its context

# record flags
MORE: Final = 1  # EVENT: the next record belongs to the same batch
BATCH: Final = 2  # EVENT: the handler gets a list
LARGE: Final = 4  # the body is in a segment of its own (resolved by this module)
JSON_BODY: Final = 8  # EVENT: the body is JSON and must be decoded whatever content_type says

PROTOCOL: Final = 1
HEADER_BYTES: Final = 4096

class RingBroken(Exception):
    """The other side wrote something that cannot be: the channel is of no further use."""

class RingClosed(Exception):
    """The other side is gone."""

class NoSpace(Exception):
    """/dev/shm has no room for a large body."""

def die_with_parent(parent_pid: int) -> None:
    """SIGKILL for this process when its parent's thread ends; exits at once when `parent_pid` is not the parent now."""

def no_new_privileges() -> None:
    """From now on no program that this process or a child runs gains rights by set-user-id bits or capabilities."""

class ProcessorChannel:
    """The processor's end. One thread."""

    def __init__(
        self, buffer: object, name: str, event_bytes: int, reply_bytes: int, event_fd: int, reply_fd: int, salt: int
    ) -> None: ...
    def limit(self, max_body: int, uid: int = -1, gid: int = -1) -> None:
        """Bytes of one event or reply, and who opens large bodies of events where the worker runs as another user.

        `put_event` raises ValueError for a larger event; in place of a larger reply or publication `drain` gives one
        with status 500.
        """
    def begun(self, position: int) -> bool:
        """Whether the worker has begun the record for which `put_event` returned `position`."""

    @property
    def beat(self) -> int:
        """Counts the records the worker has begun and the waits it has ended."""

    def put_event(
        self,
        id: int,
        flags: int,
        timestamp_ns: int,
        offset: int,
        shard_id: int,
        num_shards: int,
        texts: Sequence[str | bytes],  # content_type method path url topic id type type_version version kind name
        headers: Sequence[tuple[str | bytes, str | bytes]],
        fields: bytes | Sequence[tuple[str | bytes, str | bytes]],
        body: bytes | bytearray | memoryview,
    ) -> int:
        """A token for `begun` (never 0), or 0 when the ring has no room now.

        ValueError when it can never fit, NoSpace when /dev/shm has no room for a large body.
        """

    def put_control(self, kind: int, id: int = 0, payload: bytes = b"") -> bool: ...
    def drain(self, limit: int = 64) -> list[tuple[int, int, int, int, str, list[tuple[str, str]], bytes]]:
        """Records from the worker, copied out: (kind, id, status or level, nanoseconds, text, headers, body).

        REPLY: status, handler's duration, content type, headers, body. LOG: level 0..3, wall-clock time, message, [],
        JSON object of fields. READY, FAILED, DRAINED: payload in body. PUBLISH: 0, its number in this worker, target,
        attributes, body; for one over the limit status 500 and the reason in body.
        """

    def sleep(self) -> bool:
        """Ask to be rung. False when records came meanwhile: drain first."""

    def awake(self) -> bool:
        """Empty the doorbell after it rang. False at end-of-file: the worker is gone."""

    def close(self) -> None:
        """Forget the buffer; unlink large bodies nobody took."""

class WorkerChannel:
    """The worker's end. One thread takes; `log` and `publish` may be called from any thread."""

    def __init__(self, name: str, event_fd: int, reply_fd: int) -> None: ...
    @property
    def salt(self) -> int:
        """64 random bits of this channel, from which event ids are made."""

    @property
    def fd(self) -> int:
        """Becomes readable when rung; for event loops: `sleep()`, wait for it, `awake()`, `take()`."""

    def take(self) -> tuple[int, int, int, bytes] | None:
        """Begin the next record: (kind, flags, id, head), or None. The one before must have been released."""

    def body(self) -> bytes:
        """A copy of the begun record's body."""

    def view(self) -> memoryview:
        """The begun record's body in place. `release` raises BufferError while it, or a view made from it, is alive."""

    def release(self) -> None:
        """Give the begun record's slot back. Does nothing when no record is begun."""

    def wait(self, timeout_s: float = -1.0) -> bool:
        """Wait (spinning a little, then asleep, without the GIL) for a record. False after the time-out.

        RingClosed when the processor is gone. A signal's Python handler runs in between.
        """

    def sleep(self) -> bool: ...
    def awake(self) -> None:
        """Empty the doorbell after it rang. RingClosed at end-of-file."""

    def reply(
        self,
        id: int,
        status: int,
        content_type: str,
        headers: dict[str, str] | list[tuple[str, str]] | None,
        body: str | bytes | bytearray | memoryview,
    ) -> None:
        """Answer an event. Waits, without the GIL, while the ring is full."""

    def publish(
        self,
        id: int,
        target: str | bytes,
        attributes: Sequence[tuple[str | bytes, str | bytes]],
        body: str | bytes | bytearray | memoryview,
    ) -> None:
        """What the handler of event `id` (0: none) sends; see PROTOCOL.md. Waits while the ring is full.

        ValueError when target and attributes take more than a quarter of the ring, NoSpace as in `put_event`.
        """

    def log(self, id: int, level: int, time_ns: int, message: str, fields: str) -> None:
        """A record of the function's log, made while handling event `id` (0: none); `fields` is a JSON object or ""."""

    def control(self, kind: int, payload: bytes = b"") -> None: ...
