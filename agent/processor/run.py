"""Runs a processor on the fastest event loop there is."""

from __future__ import annotations

import asyncio
import gc
import sys

from agent.processor.config import ProcessorConfig
from agent.processor.main import Processor
from shmem import _channel


def run_to_end(config: ProcessorConfig) -> int:
    """Serve until told to stop; returns the exit code. Raises AgentError when the function cannot start."""
    _channel.no_new_privileges()  # workers of every language inherit it
    gc.freeze()  # what is imported by now lives as long as the process
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_main(config))
    return 0


def rehearse() -> None:
    """Run an empty event loop to its end: what that sets up is then shared by all forks."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(asyncio.sleep(0))


async def _main(config: ProcessorConfig) -> None:
    await Processor(config).run()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop where there is a wheel for it, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        if sys.version_info < (3, 12):
            # The default there is a thread for every child process.
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
