"""One agent a folder: a second one would take the first one's sockets and trample on its state."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.model.errors import SpecError


@contextlib.contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Hold `agent.lock` in `folder`. The kernel lets go of it when the process ends, however it ends.

    Raises SpecError that names the holder and the `option` by which another folder is given.
    """
    try:
        descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SpecError(
            f"cannot be written: {error.strerror}", where=str(folder), fix=f"give another {option}"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise SpecError(
                f"another agent (process {holder}) is using this folder",
                where=str(folder),
                fix=f"stop it, or give this one another {option}",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
