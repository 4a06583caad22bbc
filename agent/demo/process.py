"""Child processes of the demo, none of which outlives it.

Why: a demo that is interrupted, killed, or whose terminal is closed must not leave a broker or an agent behind. Each
child gets a session of its own, so that Ctrl-C reaches the demo alone, which then stops them in order; and the kernel
asks it to stop when the demo dies without being able to.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from agent.model.errors import SourceUnavailable

_PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def open_process(
    command: Sequence[str], log: Path, *, stop_s: float, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child with its output in `log`. At the end: SIGTERM, `stop_s` seconds, SIGKILL for it and its offspring."""
    library = ctypes.CDLL(None)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
            preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    try:
        yield process
    finally:
        await asyncio.shield(_stop(process, stop_s))


async def _stop(process: asyncio.subprocess.Process, stop_s: float) -> None:
    offspring = _offspring(process.pid)
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(stop_s):
            await process.wait()
    except TimeoutError:
        offspring += _offspring(process.pid)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    for child in offspring:  # psutil knows a process by pid and start time: a number used again is left alone
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _offspring(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return children
    except psutil.NoSuchProcess:
        return []


async def ended(process: asyncio.subprocess.Process, what: str, log: Path) -> None:
    """Waits for `process`, and raises SourceUnavailable with the end of its log: it was not to end by itself."""
    code = await process.wait()
    text = f"the {what} ended by itself with exit code {code}"
    raise SourceUnavailable(text, where=str(log), fix="its last words: " + (last_lines(log) or "none"))


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log."""
    return os.linesep.join(log.read_text(errors="replace").strip().splitlines()[-count:])
