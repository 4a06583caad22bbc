"""`headrace demo`: an agent with five example functions, fed by real parts, on a machine where nothing is set up.

Flow: broker, serial line, folder are opened -> the examples are pointed at them -> an agent runs the examples ->
producers feed them -> table or report. Promise: whatever ends it (time, Ctrl-C, an error, a closed terminal), the agent
drains, the broker stops, the line is closed and the folder is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.demo.broker import open_broker
from agent.demo.observe import SOURCES, Row, fetch_statistics, lost, report, rows_of, succeeded
from agent.demo.place import Place, copy_examples, open_place
from agent.demo.process import ended, open_process
from agent.demo.producers import (
    CRON_EVERY_S,
    Sent,
    call_over_http,
    measure_weather,
    open_line,
    open_publisher,
    pause,
    publish_over_mqtt,
    write_files,
)
from agent.demo.table import Table, farewell, lines_of
from agent.model.errors import AgentError, SourceUnavailable

START_S = 60.0
SETTLE_S = 5.0
"""How long the end waits for what is in flight."""
DRAIN_S = 20.0
DEATH_S = 1.0
DRAW_EVERY_S = 0.5

AGENT_CONFIG = """\
# Configuration of the demo's agent.
admin:
  port: 0
  showResults: true
logging:
  level: info
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `for_s`: end by itself after so many seconds; `keep`: leave the folder there."""

    for_s: float | None = None
    as_json: bool = False
    keep: Path | None = None


@dataclass(slots=True)
class Demo:
    """One demo that is going on."""

    place: Place
    sent: Sent
    stop: asyncio.Event
    table: Table

    async def rows(self) -> dict[str, Row]:
        return rows_of(await fetch_statistics(self.place.run))


async def run_demo(options: Options) -> int:
    """The exit code: 0 when every source was handled and nothing was lost, or a person ended it. Raises AgentError."""
    stop, out = asyncio.Event(), sys.stderr if options.as_json else sys.stdout
    try:
        with _ended_by_signals(stop), open_place(options.keep) as place, Table(out) as table:
            rows, sent = await _run(Demo(place, Sent(), stop, table), options)
    except BaseExceptionGroup as group:
        raise _first(group) from group
    if rows is None:
        with contextlib.suppress(BrokenPipeError):
            print("ended before every source was up", file=out, flush=True)
        return 130
    document = report(rows, sent)
    if options.as_json:
        print(json.dumps(document), flush=True)
    else:
        _say_goodbye(rows, sent, options.keep)
    return 0 if succeeded(document) or (options.for_s is None and not options.as_json) else 1


async def _run(demo: Demo, options: Options) -> tuple[dict[str, Row] | None, Mapping[str, int]]:
    """The last rows and what was sent; no rows when it was ended before it had begun."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_broker(demo.place.parts))
        demo.table.say(f"MQTT broker: {broker.name}, at {broker.url}")
        device, line = stack.enter_context(open_line())
        copy_examples(
            demo.place,
            {
                "http": {"port": 0},
                "mqtt": {"url": broker.url},
                "serial": {"device": line},
                "file": {"path": str(demo.place.inbox)},
            },
        )
        publisher = stack.enter_context(open_publisher(broker.url))
        await stack.enter_async_context(_agent(demo.place))
        rows = await _until_up(demo)
        if rows is None:
            return None, {}
        async with asyncio.TaskGroup() as producers:
            producers.create_task(call_over_http(rows["http"].address, demo.sent, demo.stop), name="http")
            producers.create_task(publish_over_mqtt(publisher, demo.sent, demo.stop), name="mqtt")
            producers.create_task(measure_weather(device, demo.sent, demo.stop), name="serial")
            producers.create_task(write_files(demo.place.inbox, demo.place.parts, demo.sent, demo.stop), name="file")
            ticks = await _watch(demo, options.for_s, rows["http"].address)
        demo.sent.add("cron", ticks)
        return await _settled(demo), demo.sent.counts


@asynccontextmanager
async def _agent(place: Place) -> AsyncIterator[None]:
    """The demo's agent, running; the block is cancelled, and SourceUnavailable raised, when it ends by itself."""
    place.config.write_text(AGENT_CONFIG)
    root = str(Path(__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "agent.cli.main", "agent", "--config", str(place.config)]
    command += ["--functions-dir", str(place.functions), "--state-dir", str(place.state), "--run-dir", str(place.run)]
    running = open_process(command, place.agent_log, stop_s=DRAIN_S, environment=environment)
    async with running as process, asyncio.TaskGroup() as tasks:
        death = tasks.create_task(ended(process, "agent", place.agent_log), name="agent")
        try:
            yield
        except SourceUnavailable:
            await asyncio.wait(
                [death], timeout=DEATH_S
            )  # it says nothing: if it is because it died, that is the reason
            raise
        death.cancel()


async def _until_up(demo: Demo) -> dict[str, Row] | None:
    """The rows once all five sources are up; None when the demo was ended first. Raises SourceUnavailable."""
    deadline = time.monotonic() + START_S
    while not demo.stop.is_set():
        rows = await demo.rows()
        if all(row.up for row in rows.values()):
            return rows
        if time.monotonic() > deadline:
            away = ", ".join(f"{row.source}: {row.why}" for row in rows.values() if not row.up)
            raise SourceUnavailable(
                f"not every source is up after {START_S:g} s ({away})", where=str(demo.place.agent_log)
            )
        demo.table.draw(rows, "starting")
        await pause(demo.stop, 0.1)
    return None


async def _watch(demo: Demo, for_s: float | None, url: str) -> int:
    """Draw until the end, then tell the producers; how many times the timer must have fired."""
    note = f"try:  curl '{url}/?celsius=21'" + ("" if for_s else "      Ctrl-C ends")
    beats_before = (await demo.rows())["cron"]
    since = time.monotonic()
    deadline = since + for_s if for_s is not None else float("inf")
    while not demo.stop.is_set() and time.monotonic() < deadline:
        await pause(demo.stop, min(DRAW_EVERY_S, deadline - time.monotonic()))
        demo.table.draw(await demo.rows(), note)
    ticks = int((time.monotonic() - since) / CRON_EVERY_S)
    demo.stop.set()
    return beats_before.handled + beats_before.errors + ticks


async def _settled(demo: Demo) -> dict[str, Row]:
    """The rows once nothing is in flight, or after SETTLE_S."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        rows = await demo.rows()
        if time.monotonic() > deadline or not any(lost(rows[kind], demo.sent.counts.get(kind, 0)) for kind in SOURCES):
            return rows
        await asyncio.sleep(0.05)


@contextmanager
def _ended_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal ask the demo to end; asking twice changes nothing."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a person can act on, else the first."""
    found = group.subgroup(AgentError) or group
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say_goodbye(rows: Mapping[str, Row], sent: Mapping[str, int], keep: Path | None) -> None:
    with contextlib.suppress(BrokenPipeError):
        if not sys.stdout.isatty():
            print("\n".join(lines_of(rows)))
        print(farewell(rows, sum(lost(row, sent.get(source, 0)) for source, row in rows.items())))
        if keep is not None:
            print(f"kept in {keep}")
