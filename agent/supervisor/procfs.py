"""What /proc says about processes: start times and marks.

Why: a process number alone is not an identity, it is used again. A number with its start time is; and so is a mark in
the environment, which every descendant inherits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

MARK = "HEADRACE_PROCESSOR"
"""Environment variable that names the processor a process descends from."""


def start_time(pid: int) -> int | None:
    """Ticks since boot at which that process started, or None when there is none. A zombie counts as none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in (b"Z", b"X") else int(after_name[19])


def has_mark(pid: int, mark: str) -> bool:
    """Does that process descend from the processor with this mark? False where its environment cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def marked(mark: str) -> Iterator[int]:
    """Numbers of the live processes whose environment says `HEADRACE_PROCESSOR=<mark>`."""
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own and has_mark(int(name), mark):
            yield int(name)
