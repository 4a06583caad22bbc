"""Which processors run, on disk, so that an agent started after a crash can end what the one before it left.

Flow: processor started -> [record] -> processor reaped; at the next start: records -> [sweep] -> nothing left.
Promise: a process number that was used again by somebody else is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from loguru import logger

from agent.supervisor import procfs


class Record(msgspec.Struct, frozen=True):
    """`start` is `procfs.start_time`; `mark` stands in the environment of the processor and its descendants."""

    pid: int
    start: int
    mark: str
    function: str


class Records:
    """One small file a processor in `folder` (on a volatile file system)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int, mark: str, function: str) -> None:
        """Without a record the processor still leaves by itself when the agent dies: no reason not to run it."""
        record = Record(pid, procfs.start_time(pid) or 0, mark, function)
        temporary = self._folder / f".{pid}.tmp"
        try:
            temporary.write_bytes(msgspec.json.encode(record))
            temporary.rename(self._folder / f"{pid}.json")
        except OSError as error:
            logger.warning("processor cannot be recorded", function=function, pid=pid, error=str(error))

    def remove(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            (self._folder / f"{pid}.json").unlink()

    def sweep(self, grace_s: float = 2.0) -> int:
        """End every recorded processor that still runs, and its descendants; how many processes had to be killed.

        They saw the end of their link when the former agent died and are on their way out: they get `grace_s` seconds,
        then SIGKILL. Returns when they are gone.
        """
        records = list(self._read())
        with contextlib.ExitStack() as stack:
            alive = list(_open_all(stack, {r.pid: r.start for r in records}))
            _wait_gone(alive, grace_s)
            killed = sum(_kill_group(pid, descriptor) for pid, descriptor in alive)
            _wait_gone(alive, 5.0)
        killed += sum(kill_marked(record.mark) for record in records)
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
        if records:
            logger.warning(
                "ended what an earlier agent left", functions=sorted({r.function for r in records}), killed=killed
            )
        return killed

    def _read(self) -> Iterator[Record]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Record)
            except (msgspec.DecodeError, OSError):
                continue  # half a record: the mark of the others, and the end of their link, still end the processes


def kill_marked(mark: str) -> int:
    """SIGKILL every process that carries the mark; how many there were."""
    killed = 0
    for pid in procfs.marked(mark):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                # Looked at again with the descriptor in hand: the number may have changed hands in between.
                if procfs.has_mark(pid, mark):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    killed += 1
            finally:
                os.close(descriptor)
    return killed


def _open_all(stack: contextlib.ExitStack, starts: dict[int, int]) -> Iterator[tuple[int, int]]:
    for pid, start in starts.items():
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        stack.callback(os.close, descriptor)
        if start and procfs.start_time(pid) == start:
            yield pid, descriptor


def _wait_gone(alive: Iterable[tuple[int, int]], seconds: float) -> None:
    """A pidfd is readable once its process has ended."""
    deadline = time.monotonic() + seconds
    poller = select.poll()
    waiting = {descriptor for _, descriptor in alive}
    for descriptor in waiting:
        poller.register(descriptor, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left * 1000):
            poller.unregister(descriptor)
            waiting.discard(descriptor)


def _kill_group(pid: int, descriptor: int) -> int:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return 0
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    return 1
