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

from agent.processor.leftovers import AGENTS_MARK, MARK, end_leftovers_aside
from agent.processor.limits.limits import WorkerLimits
from agent.processor.nursery import WorkerNursery
from shmem import _channel
from shmem.segment import Segment

_LONGEST_LINE = 16384


@dataclass(frozen=True, slots=True)
class WorkerLaunch:
    """How to start one worker: command, environment, folder; what it is told as HEADRACE_WORKER; size of its rings.

    `nursery`: where it can be forked instead, if it can. `limits`: what binds it, ended with it.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    settings: dict[str, Any]
    ring_bytes: int
    nursery: WorkerNursery | None = None
    max_body_bytes: int = (1 << 32) - 1
    limits: WorkerLimits | None = None


class WorkerProcess:
    """Started with `await WorkerProcess.start(...)`; `on_exit` is called once, when the process has ended."""

    def __init__(
        self, on_exit: Callable[[int], None], on_line: Callable[[str], None], event_fd: int, reply_fd: int
    ) -> None:
        self._on_exit = on_exit
        self._on_line = on_line
        self._event_fd = event_fd
        self._reply_fd = reply_fd
        self._outputs: list[_Lines] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._segment: Segment | None = None
        self._started = False
        self._listening = False
        self.limits: WorkerLimits | None = None
        self.channel_name = ""
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
            if launch.limits:
                undo.callback(launch.limits.end)
            segment = Segment(_channel.HEADER_BYTES + 2 * launch.ring_bytes)
            undo.callback(segment.close)
            event_read, event_write = _pipe(childs, undo)
            reply_write, reply_read = reversed(_pipe(undo, childs))
            os.set_blocking(event_write, False)
            os.set_blocking(reply_read, False)
            self = cls(on_exit, on_line, event_write, reply_read)
            self._segment = segment
            self.channel_name = segment.name
            self.limits = launch.limits
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
            self._open_to(launch)
            out = [await self._output(undo, childs) for _ in range(2)]
            self.pid = await self._spawn(launch, [event_read, reply_write, *out])
            loop.add_reader(reply_read, on_bell)
            undo.pop_all()
        self._started, self._listening = True, True
        if self._ended.done():  # it was quicker than we
            loop.call_soon(on_exit, self._ended.result())
        return self

    def _open_to(self, launch: WorkerLaunch) -> None:
        """Let the worker's user open the channel, and bodies be as large as the function allows."""
        assert self._segment is not None
        uid, gid = launch.limits.owner if launch.limits else (-1, -1)
        self.channel.limit(launch.max_body_bytes, uid, gid)
        if uid >= 0:
            self._segment.give_to(uid, gid)

    async def _spawn(self, launch: WorkerLaunch, descriptors: list[int]) -> int:
        """`descriptors`: event bell, reply bell, stdout, stderr. Returns the pid."""
        assert self._segment is not None
        env = launch.env | {
            "HEADRACE_SEGMENT": self._segment.name,
            "HEADRACE_EVENT_FD": str(descriptors[0]),
            "HEADRACE_REPLY_FD": str(descriptors[1]),
            "HEADRACE_WORKER": json.dumps(launch.settings | {"parent_pid": os.getpid()}),
            MARK: self._segment.name,
            AGENTS_MARK: os.environ.get(AGENTS_MARK, ""),
        }
        argv, forkable = launch.argv, True
        if launch.limits:
            env |= launch.limits.environment
            argv, forkable = launch.limits.argv(argv), launch.limits.forkable
        if launch.nursery and forkable:
            with contextlib.suppress(OSError):  # gone, or it cannot: the environment is too large, no process is left
                return await launch.nursery.fork(env, str(launch.cwd), descriptors, self._exited)
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Exit(self._exited),
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptors[2],
            stderr=descriptors[3],
            cwd=str(launch.cwd),
            env=env,
            pass_fds=descriptors[:2],
            start_new_session=True,  # its own process group: killing it takes what it started along
        )
        self._transport = transport
        return transport.get_pid()

    async def _output(self, undo: contextlib.ExitStack, childs: contextlib.ExitStack) -> int:
        """The write end of a pipe whose lines are the function's."""
        read, write = os.pipe()
        childs.callback(os.close, write)
        pipe = undo.enter_context(os.fdopen(read, "rb", buffering=0))
        lines = _Lines(self._on_line)
        await asyncio.get_running_loop().connect_read_pipe(lambda: lines, pipe)
        undo.callback(lines.close)
        self._outputs.append(lines)
        return write

    def _exited(self, status: int) -> None:
        """The process has been reaped."""
        for output in self._outputs:
            output.finish()
        self._ended.set_result(status)
        if self._started:
            self._on_exit(status)

    # the lane calls these

    def kill(self) -> None:
        """SIGKILL to the worker and everything in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM to the same."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGTERM)

    def stop_listening(self) -> None:
        """The doorbell is at its end: it would ring for ever."""
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._reply_fd)

    def close(self, done: Callable[[], None]) -> None:
        """Free channel, segment and descriptors, and end everything that the worker left; then call `done`, once."""
        if not os.path.exists(f"/proc/{self.pid}"):  # else the number is somebody else's by now
            self.kill()
        if self.limits:
            self.limits.end()
        end_leftovers_aside(self.pid, self.channel_name, done)
        self.stop_listening()
        self.channel.close()
        if self._segment:
            self._segment.close()
            self._segment = None
        if self._transport:
            self._transport.close()
        for output in self._outputs:
            output.close()
        os.close(self._event_fd)
        os.close(self._reply_fd)


def _pipe(read_owner: contextlib.ExitStack, write_owner: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    read_owner.callback(os.close, read)
    write_owner.callback(os.close, write)
    return read, write


class _Lines(asyncio.Protocol):
    """One output stream of a worker, cut into lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._partial = b""
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = b""
        self._partial = rest
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def finish(self) -> None:
        """The worker has ended: take what the pipe still holds, and the line that was not finished."""
        pipe = self._transport.get_extra_info("pipe") if self._transport else None
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                while data := os.read(pipe.fileno(), 65536):
                    self.data_received(data)
        if self._partial:
            self.data_received(b"\n")

    def close(self) -> None:
        if self._transport:
            self._transport.close()


class _Exit(asyncio.SubprocessProtocol):
    """Tells when a worker that was started by command line has ended."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def process_exited(self) -> None:
        status = self._transport.get_returncode() if self._transport else None
        self._on_exit(status or 0)
