"""Ends what a worker leaves behind: processes that left its process group, as daemons do.

Why: nobody else would. Their parent is gone, they may hold memory, ports and devices, and the function's next worker
finds them in its way. Flow: a worker has been reaped -> [leftovers] -> nothing of it runs any more.
How they are known, although they may do what they like: by the session that the worker led, by a mark in their
environment, or, where they were forked and never became another program, by the worker's segment among their mappings.
A control group (see `limits`) knows without looking; so does the agent when a processor ends, by a mark of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

MARK = "HEADRACE_CHANNEL"
"""Environment variable of a worker and all it starts: the name of its segment, which no other process ever had."""

AGENTS_MARK = "HEADRACE_PROCESSOR"
"""Environment variable by which the agent finds what a killed processor left; handed on to all workers."""

_ROUNDS = 3  # what they start while they are ended


def end_leftovers(worker: int, segment: str) -> int:
    """SIGKILL everything that descends from that worker, which has ended; how many there were."""
    killed = 0
    for _ in range(_ROUNDS):
        found = [pid for pid in _descendants(worker, segment) if _kill(pid, worker, segment)]
        killed += len(found)
        if not found:
            break
    return killed


def _descendants(worker: int, segment: str) -> Iterator[int]:
    """The segment's name says when its processor started; what is older cannot be meant."""
    oldest = int(segment.split("-")[2])
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own and _descends(int(name), worker, segment, oldest):
            yield int(name)


def _descends(pid: int, worker: int, segment: str, oldest: int) -> bool:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X") or int(fields[19]) < oldest:
        return False
    if int(fields[3]) == worker and not os.path.exists(f"/proc/{worker}"):
        return True  # a number that names a session is not used again while somebody is in it
    name = segment.encode()
    if f"{MARK}={segment}".encode() in _read(f"/proc/{pid}/environ").split(b"\0"):
        return True
    return any(
        name in line and line.split()[5] == b"/dev/shm/" + name for line in _read(f"/proc/{pid}/maps").splitlines()
    )


def _kill(pid: int, worker: int, segment: str) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # Looked at again with the descriptor in hand: the number may have changed hands in between.
            if _descends(pid, worker, segment, 0):
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
