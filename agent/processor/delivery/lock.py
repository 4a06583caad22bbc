"""Who owns a function's delivery store: one processor at a time.

Why: while versions change, the new processor starts before the old one has drained. What the old one has in hand must
not be handled by the new one too, so the new one gets the store when the old one has let go of it: at its end, however
it ends, since the kernel drops the lock with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from pathlib import Path


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Ownership:
    """`await take()`, later `release()`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    async def take(self) -> None:
        """Returns once the store is ours. Raises OSError when the lock file cannot be opened."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await self._wait(descriptor)
        self._descriptor = descriptor

    async def _wait(self, descriptor: int) -> None:
        """In a thread of its own that may be left behind: nothing else can wait for a lock and be called off."""
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()

        def wait() -> None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with the process soon the lock
                loop.call_soon_threadsafe(_resolve, taken)

        threading.Thread(target=wait, name="delivery-lock", daemon=True).start()
        await taken

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
