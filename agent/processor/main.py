"""The processor: one function version. Opens from the worker's end of the flow, closes from the trigger's end.

Flow: triggers -> sinks -> pools -> channels -> workers; reports to its agent over the link, if it has one.
Promise: a trigger whose source is away is tried again, alone, for ever; stopping is bounded; nothing of a stopped
processor stays behind.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

from loguru import logger

from agent.model.errors import AgentError, CommandError
from agent.model.registry import trigger_kind
from agent.model.spec import TriggerSpec
from agent.processor.config import ProcessorConfig
from agent.processor.delivery.delivery import Delivery
from agent.processor.function_log import FunctionLog
from agent.processor.limits.limits import Limits
from agent.processor.link import Link, Report
from agent.processor.nursery import WorkerNursery
from agent.processor.outbox.outbox import Outbox
from agent.processor.pool import Pool
from agent.processor.pools import make_pools
from agent.processor.sink import TriggerSink, sink_class

_LAST_WORDS_S = 2.0  # to send the answers of what was ended
_ORPHANED_S = 2.0  # to drain when the agent is gone: its successor waits for us
_STABLE_S = 30.0
_LONGEST_DELAY_S = 30.0


class Processor:
    """Runs one function. `run` returns when told to stop and drained; raises FunctionError when it cannot start."""

    def __init__(self, config: ProcessorConfig) -> None:
        self.config = config
        self.log = logger.bind(function=config.function.metadata.name)
        self.sinks: dict[str, TriggerSink] = {}
        self._specs = {s.name: s for s in config.function.spec.triggers.values() if not s.disabled}
        self._grace_s = max((s.worker_termination_timeout for s in self._specs.values()), default=10.0)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # a second signal: do not wait for what is in flight
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._link: Link | None = None
        self._limits: Limits | None = None
        self._delivery: Delivery
        self._outbox: Outbox | None = None
        self._pools: list[Pool] = []
        self._readiness: asyncio.Task[None] | None = None
        self._started = time.monotonic()

    async def run(self) -> None:
        """Start everything, serve until `stop`, a signal, or the end of the agent; then drain."""
        loop = asyncio.get_running_loop()
        # A terminal that is closed is a stop too; under an agent, which has none, its death is told by the link.
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled)
        try:
            async with AsyncExitStack() as stack:
                if self.config.link_fd >= 0:
                    self._link = await Link.open(self.config.link_fd)
                    stack.callback(self._link.close)
                    stack.push_async_callback(self._link.flush)
                failure = await self._start(stack)
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
        # Raised only here: on its way through the pools' task groups it would become a group of errors.
        if failure:
            raise failure

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self.stop()

    def stop(self) -> None:
        """Close the intake of every trigger, drain, leave."""
        self._stop.set()
        if self._readiness:
            self._readiness.cancel()

    async def _start(self, stack: AsyncExitStack) -> AgentError | None:
        try:
            failure = await self._serve(stack)
        except AgentError as error:
            failure = error
        if failure:
            self.report({"event": "failed", "code": failure.code, "what": str(failure)})
        return failure

    async def _serve(self, stack: AsyncExitStack) -> AgentError | None:
        """Everything between start and end. Returns why the function cannot start, or None after a regular stop."""
        if self._link:
            listening = asyncio.create_task(self._listen(self._link), name="link")
            stack.callback(listening.cancel)
        self._make_folders()
        name, spec = self.config.function.metadata.name, self.config.function.spec
        function_log = FunctionLog(name, spec.log_level, self.config.log_file)
        stack.callback(function_log.close)
        delivery = Delivery(self.config.state_dir, self._specs, self.log, spec.outbox)
        stack.push_async_callback(delivery.close)  # after the workers: what they still finish is still written
        outbox = Outbox(name, spec, delivery, self.log, self._hold)
        stack.push_async_callback(outbox.close)
        self._outbox = outbox
        nursery = WorkerNursery(self.config.nursery_fd) if self.config.nursery_fd >= 0 else None
        if nursery:
            stack.callback(nursery.close)
        limits = Limits(name, spec, self.log)
        stack.callback(limits.close)
        self._limits = limits
        pools = make_pools(self.config, function_log, self.log, nursery, limits, self.report, outbox)
        self._pools = list({id(pool): pool for pool in pools.values()}.values())
        for pool in self._pools:
            await stack.enter_async_context(pool.open(self._grace_s))
        if failure := await self._until_ready():
            return failure
        if self._stop.is_set():
            return None
        self._delivery = delivery
        self._make_sinks(pools, delivery)
        self.log.info("function is ready", workers=sum(len(p.lanes) for p in self._pools), seconds=self._age())
        self.report({"event": "ready"})
        async with asyncio.TaskGroup() as triggers:
            self._triggers = triggers
            if not self._link:
                self._go(list(self._specs))
            await self._stop.wait()
            await self._stop_triggers()
        return None

    def _make_folders(self) -> None:
        for name in self._specs:
            folder = self.config.state_dir / name
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                what = f"the state folder cannot be made: {error.strerror}"
                raise CommandError(what, where=str(folder), fix="give another with --state-dir") from error

    def _age(self) -> float:
        return round(time.monotonic() - self._started, 3)

    async def _until_ready(self) -> AgentError | None:
        if self._stop.is_set():
            return None
        self._readiness = asyncio.create_task(self._all_ready(), name="readiness")
        try:
            await self._readiness
        except AgentError as error:
            return error
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        return None

    async def _all_ready(self) -> None:
        for pool in self._pools:
            await pool.ready(self.config.function.spec.readiness_timeout_s)

    def _make_sinks(self, pools: dict[str, Pool], delivery: Delivery) -> None:
        for spec in self._specs.values():
            state_dir = self.config.state_dir / spec.name
            kind = trigger_kind(spec.kind).name
            self.sinks[spec.name] = sink_class(spec)(
                spec,
                kind,
                self.config.function.metadata.name,
                pools[spec.name],
                state_dir=state_dir,
                listeners=self.config.listeners.get(spec.name, []),
                log=self.log.bind(trigger=spec.name),
                report=self.report,
                delivery=delivery,
            )
        delivery.start(self.sinks)
        if self._outbox:
            self._outbox.start()

    # ------------------------------------------------------------------------------------------------ triggers

    def _go(self, names: list[str]) -> None:
        for name in names:
            if name in self.sinks and name not in self._tasks and not self._stop.is_set():
                task = self._triggers.create_task(self._run_trigger(self._specs[name]), name=f"trigger:{name}")
                self._tasks[name] = task

    async def _run_trigger(self, spec: TriggerSpec) -> None:
        """Runs until cancelled or done with its work. Starts it again when its source is away."""
        sink = self.sinks[spec.name]
        loop = asyncio.get_running_loop()
        delay_s = 0.25
        try:
            while True:
                begun = loop.time()
                try:
                    await trigger_kind(spec.kind).run(spec, sink)
                    return
                except AgentError as error:
                    sink.down(str(error))
                except Exception as error:  # a fault of ours in one trigger must not stop the others
                    sink.log.opt(exception=error).error("trigger failed")
                    sink.down(f"internal error: {error}")
                delay_s = min(delay_s * 2, _LONGEST_DELAY_S) if loop.time() - begun < _STABLE_S else 0.5
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
        finally:
            sink.release()

    def _hold(self, held: bool) -> None:
        for pool in self._pools:
            pool.hold(held)

    async def _stop_triggers(self) -> None:
        """Bounded: each trigger gets the grace to finish what is in flight, then is cancelled a second time."""
        self.log.info("draining")
        self._delivery.hurry()
        if self._outbox:
            self._outbox.hurry()
        for name, sink in self.sinks.items():
            sink.stop_retrying()
            if name in self._tasks:
                self._tasks[name].cancel()
            else:
                sink.release()
        if await self._drained(self._grace_s):
            return
        # Workers that hang are ended, so that whoever waits for an answer still gets one.
        for task in self._running():
            self.log.warning("trigger did not drain in time", task=task.get_name(), grace_s=self._grace_s)
        for pool in self._pools:
            pool.give_up()
        await self._drained(_LAST_WORDS_S)
        for task in self._running():
            task.cancel()

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks.values() if not task.done()]

    async def _drained(self, within_s: float) -> bool:
        """Whether every trigger has ended in time, or before a second signal."""
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        gathered = asyncio.gather(*self._running(), return_exceptions=True)
        either: list[asyncio.Future[Any]] = [hurry, gathered]
        try:
            await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            return not self._running()
        finally:
            hurry.cancel()

    # ---------------------------------------------------------------------------------------------------- link

    def report(self, message: Report) -> None:
        """Tell the agent, if there is one."""
        if self._link:
            self._link.report(message)

    async def _listen(self, link: Link) -> None:
        await link.listen(self._command)
        if not self._stop.is_set():
            self.log.warning("the agent is gone, leaving")
            self._grace_s = min(self._grace_s, _ORPHANED_S)
            self.stop()

    def _command(self, message: Report) -> None:
        match message.get("command"):
            case "go":
                self._go(message.get("triggers") or list(self._specs))
            case "release":
                self.stop()
            case "statistics":
                self.report({"event": "statistics", "id": message.get("id"), "statistics": self.statistics()})

    def statistics(self) -> dict[str, Any]:
        """Counts and latencies of every trigger, and what the workers are doing."""
        return {
            "triggers": {name: sink.statistics.as_dict() | sink.gauges() for name, sink in self.sinks.items()},
            "workers": [
                {
                    "pool": pool.name,
                    "worker": lane.index,
                    "pid": lane.pid,
                    "ready": lane.ready,
                    "busy": len(lane.pending),
                    "events": lane.events,
                }
                for pool in self._pools
                for lane in pool.lanes
            ],
            "worker_restarts": sum(pool.restarts for pool in self._pools),
            "workers_recycled": sum(pool.recycled for pool in self._pools),
            "failing": "; ".join(filter(None, (pool.failing for pool in self._pools))),
            "limits": self._limits.statistics() if self._limits else {},
            "outbox": self._outbox.statistics() if self._outbox else {},
        }
