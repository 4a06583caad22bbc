"""Which workers a function has: one pool a trigger, or a shared one where triggers name the same allocator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model.registry import trigger_kind
from agent.model.runtime import Launch, runtime_for
from agent.model.spec import TriggerSpec
from agent.processor.config import ProcessorConfig
from agent.processor.function_log import FunctionLog
from agent.processor.limits.limits import Limits
from agent.processor.nursery import WorkerNursery
from agent.processor.outbox.outbox import Outbox
from agent.processor.pool import Pool
from agent.processor.worker import WorkerLaunch

if TYPE_CHECKING:
    from loguru import Logger


def make_pools(
    config: ProcessorConfig,
    function_log: FunctionLog,
    log: Logger,
    nursery: WorkerNursery | None,
    limits: Limits | None = None,
    report: Callable[[dict[str, Any]], None] = lambda message: None,
    outbox: Outbox | None = None,
) -> dict[str, Pool]:
    """A pool for every enabled trigger, by trigger name; triggers that share workers get the same one."""
    spec = config.function.spec
    launch = runtime_for(spec.runtime).launch(config.function, config.code_dir)
    groups: dict[str, list[TriggerSpec]] = {}
    for trigger in spec.triggers.values():
        if not trigger.disabled:
            groups.setdefault(_allocator(trigger, spec.triggers), []).append(trigger)
    pools: dict[str, Pool] = {}
    for name, triggers in groups.items():
        pool = Pool(
            name,
            [
                _launcher(config, launch, triggers, index, nursery, limits)
                for index in range(max(t.num_workers for t in triggers))
            ],
            in_flight_limit=max(trigger.in_flight_limit for trigger in triggers),
            event_timeout_s=spec.event_timeout or 0.0,
            queue_size=max(trigger.queue_size for trigger in triggers),
            function_log=function_log,
            log=log,
            recycle=spec.recycle,
            limits=limits,
            report=report,
            outbox=outbox,
        )
        pools |= {trigger.name: pool for trigger in triggers}
    return pools


def _allocator(trigger: TriggerSpec, triggers: dict[str, TriggerSpec]) -> str:
    if trigger.worker_allocator_name:
        return f"allocator {trigger.worker_allocator_name}"
    shared = triggers.get(trigger.shares_workers_of)
    return _allocator(shared, triggers) if shared and not shared.disabled else trigger.name


def _launcher(
    config: ProcessorConfig,
    launch: Launch,
    triggers: list[TriggerSpec],
    index: int,
    nursery: WorkerNursery | None,
    limits: Limits | None,
) -> Callable[[], WorkerLaunch]:
    named = triggers[0].worker_allocator_name
    settings: dict[str, Any] = {
        "handler": config.function.spec.handler,
        "worker_id": str(index),
        "trigger_kind": "" if named else trigger_kind(triggers[0].kind).name,
        "trigger_name": named or triggers[0].name,
        "function": config.function.metadata.name,
        "namespace": config.function.metadata.namespace,
        "in_flight": max(trigger.in_flight_limit for trigger in triggers),
        "batch": any(trigger.batch.enabled for trigger in triggers),
        "code_dir": str(config.code_dir),
        "calls_dir": config.calls_dir,
        "log_level": config.function.spec.log_level,
        "bindings": {name: item.topic for name, item in config.function.spec.bindings.items()},
        "brokers": [name for name, item in config.function.spec.triggers.items() if item.kind == "mqtt"],
        "max_body": config.function.spec.max_body_bytes,
    }

    def make() -> WorkerLaunch:
        return WorkerLaunch(
            launch.argv,
            dict(launch.env),
            Path(config.code_dir),
            settings,
            config.function.spec.ring_bytes,
            nursery if launch.forkable else None,
            config.function.spec.max_body_bytes,
            limits.worker(index) if limits else None,
        )

    return make
