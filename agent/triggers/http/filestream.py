"""A file as the body of a reply: nuclio's `X-nuclio-filestream-path`.

Flow: handler's headers -> connection -> [this] -> socket. Files are opened and read on a thread, a piece at a time; the
next piece is read when the client has taken the one before, so a file of any size costs one piece of memory.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from agent.model.event import Outcome
from agent.triggers.http.request import Traits
from agent.triggers.http.response import Encoder, bodiless, error_body, logs_header

PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileReply:
    """The handler asked for this file to be sent."""

    path: str
    delete_after_send: bool
    outcome: Outcome
    close: bool


@dataclass(slots=True)
class OpenFile:
    """An open file and its size in bytes; `status` tells why there is none."""

    status: int
    descriptor: int = -1
    size: int = 0


def requested(outcome: Outcome, close: bool) -> FileReply | None:
    """The file that the reply's headers ask for. `close`: the connection ends after it."""
    found = {name.lower(): value for name, value in outcome.headers}
    path = found.get("x-nuclio-filestream-path")
    if not path:
        return None
    return FileReply(path, "x-nuclio-filestream-delete-after-send" in found, outcome, close)


def open_file(path: str) -> OpenFile:
    """Blocking. 404 when it is missing, 500 when it is no regular file or may not be read."""
    try:
        # O_NONBLOCK: opening a named pipe nobody writes to would otherwise hold the thread for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return OpenFile(404)
    except (OSError, ValueError):
        return OpenFile(500)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return OpenFile(500)
    return OpenFile(200, descriptor, found.st_size)


def delete(path: str) -> None:
    """Blocking. A file that is gone already is fine."""
    try:
        Path(path).unlink(missing_ok=True)
    except (OSError, ValueError):
        return


async def send(
    threads: Executor,
    file: OpenFile,
    write: Callable[[bytes], None],
    writable: Callable[[], Awaitable[bool]],
    *,
    nothing: bool,
) -> bool:
    """Send `file.size` bytes and close the file. `threads` must be a single thread: it closes after its last read.

    `writable` returns once the client has taken enough for more, False when it is gone. False: not everything was sent,
    because the client left or the file got shorter meanwhile. `nothing`: only close it.
    """
    loop = asyncio.get_running_loop()
    left = 0 if nothing else file.size
    try:
        while left and await writable():
            piece = await loop.run_in_executor(threads, os.read, file.descriptor, min(PIECE, left))
            if not piece:
                return False
            write(piece)
            left -= len(piece)
        return not left
    finally:
        threads.submit(os.close, file.descriptor)


async def answer(
    reply: FileReply,
    traits: Traits,
    encoder: Encoder,
    threads: Executor,
    write: Callable[[bytes], None],
    writable: Callable[[], Awaitable[bool]],
) -> bool:
    """The whole response. False when it was begun and could not be finished: the connection has to be cut."""
    try:
        file = await _opened(threads, reply.path)
        outcome = reply.outcome
        if file.status != 200:
            body = error_body(f"the function answered with a file that {_WHY[file.status]}")
            write(encoder.full(file.status, "application/json", body, traits, close=reply.close))
            return True
        head = encoder.full(
            outcome.status,
            outcome.content_type,
            b"",
            traits,
            headers=outcome.headers,
            more=logs_header(outcome.logs),
            close=reply.close,
            length=file.size,
        )
        write(head)
        return await send(threads, file, write, writable, nothing=traits.head or bodiless(outcome.status))
    except OSError:
        return False  # the disk failed half-way
    finally:
        if reply.delete_after_send:
            threads.submit(delete, reply.path)


async def _opened(threads: Executor, path: str) -> OpenFile:
    opening = threads.submit(open_file, path)
    try:
        return await asyncio.wrap_future(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise


def _close_unused(opening: Future[OpenFile]) -> None:
    if not opening.cancelled() and opening.result().descriptor >= 0:
        os.close(opening.result().descriptor)


_WHY = {404: "does not exist", 500: "cannot be read"}
