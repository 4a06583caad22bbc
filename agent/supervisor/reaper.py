"""Takes the exit status of every child, and of every orphan that was handed to the agent.

Why: a processor's grandchildren become ours when it dies (the agent is a "subreaper"), and nobody else would wait for
them. Flow: SIGCHLD -> [reaper] -> the callback of the process that ended.
Promise: no zombies; what is left of a dead leader's process group is killed before its number can be used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_CHILD_SUBREAPER = 36


class Reaper:
    """One in the process: it waits for any child. `watch` must be called before control returns to the loop."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[int], None]] = {}

    def start(self) -> None:
        """Become the parent of orphaned descendants, and listen for SIGCHLD on the running loop."""
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def watch(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the exit code (negative: minus the signal) of that child, which leads a process group."""
        self._watched[pid] = ended

    def reap(self) -> None:
        """Take every status there is now."""
        while (pid := _ended_child()) is not None:
            ended = self._watched.pop(pid, None)
            if ended is not None:
                # Before it is waited for: until then the number, and so the group, can only be ours.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            try:
                _, status = os.waitpid(pid, 0)
            except ChildProcessError:
                continue
            if ended is not None:
                ended(os.waitstatus_to_exitcode(status))


def _ended_child() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
