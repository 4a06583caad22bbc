"""On which cores two processes run.

Why: on a virtual machine waking a process on another core takes five times as long as waking one on the same core, and
the scheduler picks one or the other for a whole run. A busy round trip is only comparable when the place is given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Set
from pathlib import Path


@contextlib.contextmanager
def on_one_core(*pids: int) -> Iterator[None]:
    """All of them on the same core."""
    core = max(os.sched_getaffinity(0))
    with _placed({pid: {core} for pid in pids}):
        yield


@contextlib.contextmanager
def on_two_cores(first: int, second: int) -> Iterator[None]:
    """Each on a core of its own; on a machine with one core the same as `on_one_core`."""
    cores = sorted(os.sched_getaffinity(0))
    with _placed({first: {cores[0]}, second: {cores[-1]}}):
        yield


@contextlib.contextmanager
def _placed(places: dict[int, Set[int]]) -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    try:
        for pid, cores in places.items():
            _place(pid, cores)
        yield
    finally:
        for pid in places:
            _place(pid, allowed)


def _place(pid: int, cores: Set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)
