"""The kickstart trigger: one event, whatever becomes of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent.model.event import Outcome, Result
from agent.triggers.kickstart.trigger import KickstartSpec, run
from tests.support.eventually import eventually
from tests.support.recording_sink import RecordingSink

KEYS: dict[str, Any] = {"kind": "kickstart", "event": {"body": "go", "headers": {"X-Reason": "start"}, "path": "/s"}}


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_one_event_at_the_start_and_then_none(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    task = asyncio.create_task(run(msgspec.convert(KEYS, KickstartSpec), sink))
    await eventually(lambda: sink.events and not sink.in_flight)
    assert not task.done()
    await cancelled(task)
    (event,) = sink.events
    assert (bytes(event.body), list(event.headers), event.path, event.method) == (
        b"go",
        [("X-Reason", "start")],
        "/s",
        "",
    )
    assert event.timestamp_ns == 0
    assert sink.state == "up"


async def test_a_failed_event_is_not_the_end(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, answer=lambda event: Outcome(Result.WORKER_DIED))
    task = asyncio.create_task(run(msgspec.convert(KEYS, KickstartSpec), sink))
    await eventually(lambda: sink.events and not sink.in_flight)
    assert not task.done()
    await cancelled(task)


async def test_cancelled_it_waits_for_what_a_worker_has_in_hand(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path)
    sink.hold = True
    task = asyncio.create_task(run(msgspec.convert(KEYS, KickstartSpec), sink))
    await eventually(lambda: sink.held)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    sink.finish_held()
    await cancelled(task)
