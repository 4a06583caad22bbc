"""`eventually(probe)`: wait for a condition. The only sleep in the tests. `turns`: let others run, without a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(probe: Callable[[], Any], within_s: float = 10.0, every_s: float = 0.01) -> Any:
    """The first true value `probe` (plain or async) gives. Raises AssertionError after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {inspect.getsource(probe).strip()}")
        await asyncio.sleep(every_s)


def wait_until(probe: Callable[[], Any], within_s: float = 10.0, every_s: float = 0.01) -> Any:
    """`eventually` for tests that are not coroutines."""
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {inspect.getsource(probe).strip()}")
        time.sleep(every_s)


async def turns(count: int = 1) -> None:
    """So many turns of the event loop: what is ready now, and what that makes ready, has run. No time passes."""
    for _ in range(count):
        await asyncio.sleep(0)
