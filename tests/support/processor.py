"""A real processor with real workers inside the test's own event loop, fed through its sinks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from agent.model.event import Event, Outcome
from agent.model.load import load_text
from agent.processor.config import ProcessorConfig
from agent.processor.main import Processor
from agent.processor.sink import TriggerSink


class RunningProcessor:
    """`sink` is the first trigger's; `log` the function's log file."""

    def __init__(self, processor: Processor, log: Path) -> None:
        self.processor = processor
        self.log = log

    @property
    def sink(self) -> TriggerSink:
        return next(iter(self.processor.sinks.values()))

    async def call(self, body: bytes = b"", deliver: bool = False, **values: Any) -> Outcome:
        """Dispatch (or deliver) one event and wait for its outcome."""
        return await self.start(body, deliver, **values)

    def start(self, body: bytes = b"", deliver: bool = False, **values: Any) -> asyncio.Future[Outcome]:
        """Dispatch one event; the future gets its outcome."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        hand_over = self.sink.deliver if deliver else self.sink.dispatch
        hand_over(Event(body=body, **values), lambda result: outcome.cancelled() or outcome.set_result(result))
        return outcome

    def workers(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return [item["pid"] for item in self.processor.statistics()["workers"] if item["ready"]]


def config_for(folder: Path, code: str, *, spec: dict[str, Any] | None = None, **trigger: Any) -> ProcessorConfig:
    """A function `f` with one trigger that never fires by itself, its handler `main:handler` from `code`."""
    document = {
        "metadata": {"name": "f"},
        "spec": {
            "runtime": "python",
            "handler": "main:handler",
            "disableDefaultHTTPTrigger": True,
            "build": {"functionSourceCode": base64.b64encode(textwrap.dedent(code).encode()).decode()},
            "triggers": {"t": {"kind": "cron", "interval": "1000h"} | trigger},
        }
        | (spec or {}),
    }
    function = load_text(msgspec.json.encode(document), "test").function
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "main.py").write_text(textwrap.dedent(code))
    return ProcessorConfig(function, folder / "code", folder / "state", folder / "function.log")


@contextlib.asynccontextmanager
async def running(
    folder: Path, code: str, *, spec: dict[str, Any] | None = None, **trigger: Any
) -> AsyncIterator[RunningProcessor]:
    """A processor that serves; it is stopped and drained at the end. Raises what `Processor.run` raises."""
    processor = Processor(config_for(folder, code, spec=spec, **trigger))
    task = asyncio.create_task(processor.run())
    up = asyncio.create_task(_until_sinks(processor))
    await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED)
    up.cancel()
    try:
        if task.done():
            await task
        yield RunningProcessor(processor, folder / "function.log")
    finally:
        processor.stop()
        await task


async def _until_sinks(processor: Processor) -> None:
    while not processor.sinks:
        await asyncio.sleep(0.005)
