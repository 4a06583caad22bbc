"""From a fresh interpreter to a serving worker, and out again.

Flow: settings from the environment -> channel -> the function's modules -> `init_context` -> READY -> a loop, until the
processor says stop or is gone. When the function cannot be loaded: FAILED with the reason, exit code 1.
"""

from __future__ import annotations

import json
import os
import sys

from ..context import Context
from ..event import TriggerInfo
from ..logger import Logger
from ..platform import Platform
from ..publisher import Publisher
from . import plain
from .channel_event import event_class
from .lane import Lane, ViewKept
from .load import failure_text, init_context_of, load_handler
from .output import ChannelOutput

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shmem._channel import WorkerChannel

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE, without importing inspect
_OFF = ("no", "false", "disable", "disabled")


class Settings:
    """What the processor says through the environment, taken out of it so that no child process finds it."""

    def __init__(self, environment: Any) -> None:
        self.segment = environment.pop("HEADRACE_SEGMENT")
        self.event_fd = int(environment.pop("HEADRACE_EVENT_FD"))
        self.reply_fd = int(environment.pop("HEADRACE_REPLY_FD"))
        self.worker: dict[str, Any] = json.loads(environment.pop("HEADRACE_WORKER"))
        self.decode = environment.get("NUCLIO_PYTHON_DECODE_EVENT_STRINGS", "").lower() not in _OFF

    @property
    def code_dir(self) -> str:
        return os.path.abspath(str(self.worker["code_dir"]))


def run(protocol: Any, settings: Settings) -> int:
    """Serve until the end; the exit code. `protocol` is the channel's extension module."""
    protocol.die_with_parent(settings.worker["parent_pid"])
    protocol.no_new_privileges()  # for good, whatever the function starts
    channel = protocol.WorkerChannel(settings.segment, settings.event_fd, settings.reply_fd)
    output = ChannelOutput(channel)
    _keep_for_this_process(settings, output)
    try:
        return _serve(protocol, settings, channel, output)
    except protocol.RingClosed:
        return 0
    except ViewKept as error:
        print(f"worker ends: {error}", file=sys.stderr)
        output(40, f"worker ends: {error}", {})
        return 1


def _keep_for_this_process(settings: Settings, output: ChannelOutput) -> None:
    """A child that the handler starts must neither hold the doorbells open nor write into our channel."""
    descriptors = (settings.event_fd, settings.reply_fd)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)

    def in_child() -> None:
        output.channel = None
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)

    os.register_at_fork(after_in_child=in_child)


def _serve(protocol: Any, settings: Settings, channel: WorkerChannel, output: ChannelOutput) -> int:
    worker = settings.worker
    context = _context(worker, output)
    try:
        handler = load_handler(worker["handler"], settings.code_dir)
    except BaseException as error:  # the module's own code runs at import
        what = f"cannot import the handler {worker['handler']!r}"
        return _fail(protocol, channel, failure_text(what, error, settings.code_dir))
    canonical = worker["trigger_kind"] in ("http", "")  # "": workers that triggers share
    events = event_class(channel, decode=settings.decode, canonical=canonical)
    lane = Lane(protocol, channel, handler, context, output, events)
    try:
        return _serve_lane(lane, settings)
    finally:
        lane.flush()


def _context(worker: dict[str, Any], output: ChannelOutput) -> Context:
    logger = Logger(worker["log_level"])
    logger.bind(worker_id=worker["worker_id"])
    logger.outputs["default"] = output
    platform = Platform("local", namespace=worker["namespace"], calls_dir=worker["calls_dir"])
    trigger = TriggerInfo(worker["trigger_kind"], worker["trigger_name"])
    publisher = Publisher(
        output, worker.get("bindings", {}), worker.get("brokers", []), worker.get("max_body", 1 << 24)
    )
    return Context(logger, platform, worker["worker_id"], trigger, publisher)


def _serve_lane(lane: Lane, settings: Settings) -> int:
    init_context = init_context_of(lane.handler)
    if _is_async(lane.handler) or _is_async(init_context):
        import asyncio

        return asyncio.run(_serve_async(lane, settings, init_context))
    try:
        if init_context is not None:
            init_context(lane.context)
    except BaseException as error:
        return _init_failed(lane, settings, error)
    lane.channel.control(lane.protocol.READY)
    try:
        pending = plain.serve(lane)
    except lane.protocol.RingClosed:
        pending = None
    if pending is None:
        plain.terminate(lane)
        return 0
    import asyncio

    return asyncio.run(_go_on_async(lane, settings, pending))


async def _serve_async(lane: Lane, settings: Settings, init_context: Callable[..., Any] | None) -> int:
    try:
        if init_context is not None:
            result = init_context(lane.context)
            if hasattr(type(result), "__await__"):
                await result
    except BaseException as error:
        return _init_failed(lane, settings, error)
    lane.channel.control(lane.protocol.READY)
    return await _go_on_async(lane, settings, None)


async def _go_on_async(lane: Lane, settings: Settings, pending: Any) -> int:
    from . import coroutines

    # several plain handlers cannot be in flight in one thread
    in_flight = settings.worker["in_flight"] if pending is not None or _is_async(lane.handler) else 1
    try:
        await coroutines.serve(lane, in_flight, pending)
    except lane.protocol.RingClosed:
        await coroutines.terminate(lane)
    return 0


def _is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine, as far as can be told without calling it."""
    while type(function).__name__ == "partial":
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & _CO_COROUTINE)


def _init_failed(lane: Lane, settings: Settings, error: BaseException) -> int:
    return _fail(lane.protocol, lane.channel, failure_text("init_context failed", error, settings.code_dir))


def _fail(protocol: Any, channel: WorkerChannel, reason: str) -> int:
    channel.control(protocol.FAILED, reason.encode("utf-8", "replace"))
    return 1
