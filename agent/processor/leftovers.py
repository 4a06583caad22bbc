"""Ends what a worker leaves behind: processes that left its process group, as daemons do.

Why: nobody else would. Their parent is gone, they may hold memory, ports and devices, and the function's next worker
finds them in its way. Flow: a worker has been reaped -> [leftovers] -> nothing of it runs any more.
How they are known, although they may do what they like: by the session that the worker led, by a mark in their
environment, or, where they were forked and never became another program, by the worker's segment among their mappings.
A control group (see `limits`) knows without looking; so does the agent when a processor ends, by a mark of its own.
Looking takes milliseconds, so it is done in a thread that lives as long as that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import NamedTuple

MARK = "HEADRACE_CHANNEL"
"""Environment variable of a worker and all it starts: the name of its segment, which no other process ever had."""

AGENTS_MARK = "HEADRACE_PROCESSOR"
"""Environment variable by which the agent finds what a killed processor left; handed on to all workers."""

_ROUNDS = 5  # what they start while they are ended


def end_leftovers_aside(worker: int, segment: str, done: Callable[[], None]) -> None:
    """`end_leftovers` in a thread; `done` is called on the running loop when nothing is left."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        try:
            end_leftovers(worker, segment)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done)

    try:
        threading.Thread(target=look, name="leftovers").start()
    except RuntimeError:  # no thread can be had
        look()


def end_leftovers(worker: int, segment: str) -> int:
    """SIGKILL everything that descends from that worker, which has ended; how many there were."""
    killed = 0
    for _ in range(_ROUNDS):
        table = _processes()
        found = [pid for pid in _tree(_roots(table, worker, segment), table) if _kill(pid, table[pid].start)]
        killed += len(found)
        if not found:
            break
    return killed


class _Process(NamedTuple):
    parent: int
    session: int
    start: int  # ticks since boot: with the number, an identity


def _processes() -> dict[int, _Process]:
    """All that live, by number."""
    table: dict[int, _Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if len(fields) > 19 and fields[0] not in (b"Z", b"X"):
                table[int(name)] = _Process(int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def _roots(table: dict[int, _Process], worker: int, segment: str) -> list[int]:
    """Those whose own parent was the worker, or has ended too: they have fallen to one of our ancestors, or to us."""
    oldest = int(segment.split("-")[2])  # its processor's start: what is older cannot be meant
    own = os.getpid()
    above = {own}
    while (up := table[own].parent if own in table else 0) and up not in above:
        above.add(own := up)
    found = []
    for pid, process in table.items():
        if process.start < oldest or pid in above:
            continue
        # A number that names a session is not given to a new process while somebody is in that session.
        in_session = process.session == worker and worker not in table
        if in_session or (process.parent in above and _marked(pid, segment)):
            found.append(pid)
    return found


def _marked(pid: int, segment: str) -> bool:
    if f"{MARK}={segment}".encode() in _read(f"/proc/{pid}/environ").split(b"\0"):
        return True
    path = b" /dev/shm/" + segment.encode()
    return any(line.removesuffix(b" (deleted)").endswith(path) for line in _read(f"/proc/{pid}/maps").splitlines())


def _tree(roots: list[int], table: dict[int, _Process]) -> list[int]:
    """They and all below them."""
    below = list(roots)
    for pid in below:  # grows while it is walked through
        below += [child for child, process in table.items() if process.parent == pid and child not in below]
    return below


def _kill(pid: int, start: int) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # Looked at again with the descriptor in hand: the number may have changed hands in between.
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if len(fields) > 19 and int(fields[19]) == start and fields[0] not in (b"Z", b"X"):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
