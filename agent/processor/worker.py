"""A worker process: its channel, its doorbells, its output.

Flow: lane -> [worker process] -> runtimes/LANG/worker.*.
Promise: `kill` and `close` leave no process of the worker's group, no segment and no descriptor behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from shmem import _channel
from shmem.segment import Segment

_LONGEST_LINE = 16384


@dataclass(frozen=True, slots=True)
class WorkerLaunch:
    """How to start one worker: command, environment, folder; what it is told as HEADRACE_WORKER; size of its rings."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    settings: dict[str, Any]
    ring_bytes: int


class WorkerProcess(asyncio.SubprocessProtocol):
    """Started with `await WorkerProcess.start(...)`; `on_exit` is called once, when the process has ended."""

    def __init__(
        self, on_exit: Callable[[int], None], on_line: Callable[[str], None], event_fd: int, reply_fd: int
    ) -> None:
        self._on_exit = on_exit
        self._on_line = on_line
        self._event_fd = event_fd
        self._reply_fd = reply_fd
        self._partial: dict[int, bytes] = {}
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._segment: Segment | None = None
        self._started = False
        self.channel: _channel.ProcessorChannel
        self.pid = 0

    @classmethod
    async def start(
        cls,
        launch: WorkerLaunch,
        on_bell: Callable[[], None],
        on_exit: Callable[[int], None],
        on_line: Callable[[str], None],
    ) -> WorkerProcess:
        """Make the channel and start the process. Raises OSError: no memory, no such program, no more processes."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as childs:
            segment = Segment(_channel.HEADER_BYTES + 2 * launch.ring_bytes)
            undo.callback(segment.close)
            event_read, event_write = _pipe(childs, undo)
            reply_write, reply_read = reversed(_pipe(undo, childs))
            os.set_blocking(event_write, False)
            os.set_blocking(reply_read, False)
            self = cls(on_exit, on_line, event_write, reply_read)
            self._segment = segment
            self.channel = _channel.ProcessorChannel(
                segment.buffer,
                segment.name,
                launch.ring_bytes,
                launch.ring_bytes,
                event_write,
                reply_read,
                secrets.randbits(64),
            )
            undo.callback(self.channel.close)
            env = launch.env | {
                "HEADRACE_SEGMENT": segment.name,
                "HEADRACE_EVENT_FD": str(event_read),
                "HEADRACE_REPLY_FD": str(reply_write),
                "HEADRACE_WORKER": json.dumps(launch.settings | {"parent_pid": os.getpid()}),
            }
            transport, _ = await loop.subprocess_exec(
                lambda: self,
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=str(launch.cwd),
                env=env,
                pass_fds=(event_read, reply_write),
                start_new_session=True,  # its own process group: killing it takes what it started along
            )
            self.pid = transport.get_pid()
            loop.add_reader(reply_read, on_bell)
            undo.pop_all()
        self._started = True
        if self._ended.done():  # it was quicker than we
            loop.call_soon(on_exit, self._ended.result())
        return self

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Lines the function printed, on either stream."""
        *lines, rest = (self._partial.pop(fd, b"") + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = b""
        if rest:
            self._partial[fd] = rest
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def process_exited(self) -> None:
        """The process has been reaped."""
        assert self._transport is not None
        for fd in list(self._partial):
            self.pipe_data_received(fd, b"\n")
        status = self._transport.get_returncode()
        self._ended.set_result(status or 0)
        if self._started:
            self._on_exit(status or 0)

    # the lane calls these

    def kill(self) -> None:
        """SIGKILL to the worker and everything in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, grace_s: float) -> None:
        """Wait `grace_s` seconds for it to leave by itself, then kill; returns when it is reaped."""
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self.kill()
            await self._ended

    def close(self) -> None:
        """Free channel, segment and descriptors, and end what the worker left in its process group."""
        self.kill()
        asyncio.get_running_loop().remove_reader(self._reply_fd)
        self.channel.close()
        if self._segment:
            self._segment.close()
            self._segment = None
        if self._transport:
            self._transport.close()
        os.close(self._event_fd)
        os.close(self._reply_fd)


def _pipe(read_owner: contextlib.ExitStack, write_owner: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    read_owner.callback(os.close, read)
    write_owner.callback(os.close, write)
    return read, write
