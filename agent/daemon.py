"""The agent put together: which part is made from which, in what order they open and close.

Flow: configuration -> [daemon] -> locks, leftovers swept, sockets, supervisor, admin listener, drop-ins.
Promise: the start waits for nothing outside this device; SIGTERM and SIGINT drain within the functions' termination
times, a second one ends at once; SIGHUP looks at the functions folder again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from loguru import logger

from agent.configuration import Configuration, Supervision, shared_place
from agent.dropins.dropins import DropIns
from agent.model.errors import AgentError, SpecError
from agent.model.load import Loaded, load_function
from agent.model.private import private_folder
from agent.store import atomic
from agent.store.generations import CannotPrepare, Generations
from agent.store.lock import locked
from agent.store.ports import RememberedPorts
from agent.supervisor.admin import Reported, open_admin
from agent.supervisor.backoff import Policy
from agent.supervisor.notify import notify
from agent.supervisor.process import COMMAND, Fork, Launcher
from agent.supervisor.reaper import Reaper
from agent.supervisor.records import Records
from agent.supervisor.safe_mode import SafeMode, Starts
from agent.supervisor.sockets import Sockets
from agent.supervisor.supervisor import Supervisor
from agent.supervisor.version import Version


async def run_agent(configuration: Configuration, fork: Fork | None = None) -> None:
    """Until SIGTERM or SIGINT. `fork`: the nursery's. Raises AgentError when it cannot start."""
    with _signals() as signals, contextlib.ExitStack() as stack:
        functions, state, run = _folders(configuration)
        stack.enter_context(locked(run, "--run-dir"))
        if state != run:
            stack.enter_context(locked(state, "--state-dir"))
        given = configuration.supervisor
        starts = Starts(state / "starts.json", given.safe_mode_starts, float(given.safe_mode_within), atomic.write)
        try:
            await _serve(configuration, functions, state, run, signals, fork, starts)
        except BaseExceptionGroup as group:
            reason = _reason(group)
            if isinstance(reason, AgentError):
                starts.end()  # said, and for a person to mend: not a loop
            raise reason from group
        except AgentError:
            starts.end()
            raise
        starts.end()


async def _safely(safe: SafeMode, signals: _Signals) -> None:
    """Wait with the functions until SIGHUP, or the end."""
    hung_up = asyncio.Event()
    signals.on_hangup = hung_up.set
    logger.error("starting in safe mode", state=safe.why)
    notify("READY=1", f"STATUS={safe.why}")
    waits = [asyncio.ensure_future(event.wait()) for event in (hung_up, signals.stop)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for item in waits:
            item.cancel()
    logger.info("leaving safe mode")


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a person can act on, out of what a task group makes of it; else the group itself."""
    ours, others = group.split(AgentError)
    found: BaseException | None = ours
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return group if others or found is None else found


async def _serve(
    configuration: Configuration,
    functions: Path,
    state: Path,
    run: Path,
    signals: _Signals,
    fork: Fork | None,
    starts: Starts,
) -> None:
    why = starts.begin()
    records = Records(run / "processors")
    generations = Generations(run / "functions", state / "functions", run / "logs")
    _sweep(records, generations, run)
    sockets = Sockets(RememberedPorts(state / "ports.json"), run / "calls")
    launcher = Launcher(
        Reaper(),
        records,
        run / "calls",
        float(configuration.supervisor.drain_margin),
        configuration.supervisor.processor_command or COMMAND,
        _sweep_segments,
        None if configuration.supervisor.processor_command else fork,
    )
    launcher.reaper.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            policy = _policy(configuration.supervisor)
            supervisor = Supervisor(
                tasks,
                launcher,
                sockets,
                policy,
                unused=lambda version: generations.remove(version.folder),
                gone=lambda name: deployed.gone(name),
            )
            deployed = _Deployed(supervisor, generations)
            settle, leave_out = float(configuration.dropins.settle), configuration.dropins.ignore
            dropins = DropIns(functions, load_function, deployed, settle, leave_out)
            reported = Reported(SafeMode(why) if why else supervisor)
            admin = configuration.admin
            opened = open_admin(admin.host, admin.port, reported, show_results=admin.show_results)
            async with opened as address:
                _announce(run, address)
                if isinstance(reported.subject, SafeMode):
                    await _safely(reported.subject, signals)
                    starts.end()
                    reported.subject = supervisor
                signals.on_hangup = dropins.rescan
                watching = tasks.create_task(dropins.run(lambda: _started(supervisor, functions)), name="drop-ins")
                await signals.stop.wait()
                notify("STOPPING=1", "STATUS=draining")
                logger.info("draining", functions=len(supervisor.functions))
                watching.cancel()
                await _drain(supervisor, signals)
    finally:
        launcher.reaper.stop()
        sockets.close()
        (run / "admin.json").unlink(missing_ok=True)
    generations.sweep()  # what functions said stays: it is most wanted after the end
    logger.info("stopped")


async def _drain(supervisor: Supervisor, signals: _Signals) -> None:
    async with asyncio.TaskGroup() as tasks:
        hurry = tasks.create_task(_kill_at_second_signal(supervisor, signals), name="second signal")
        await supervisor.stop()
        hurry.cancel()


async def _kill_at_second_signal(supervisor: Supervisor, signals: _Signals) -> None:
    await signals.now.wait()
    logger.warning("ending without waiting")
    supervisor.kill()


class _Signals:
    """SIGTERM and SIGINT set `stop`, and at the second time `now`; SIGHUP calls `on_hangup`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.on_hangup: Callable[[], None] = _nothing

    def ask_to_stop(self) -> None:
        (self.now if self.stop.is_set() else self.stop).set()

    def hang_up(self) -> None:
        self.on_hangup()


def _nothing() -> None:
    """A hang-up before there is a folder to look at again must not end the process, which is its default."""


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Handlers are the first thing there is: a signal during the start must not be fatal or lost."""
    loop, signals = asyncio.get_running_loop(), _Signals()
    handlers = {signal.SIGTERM: signals.ask_to_stop, signal.SIGINT: signals.ask_to_stop, signal.SIGHUP: signals.hang_up}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield signals
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


class _Deployed:
    """Target of the drop-ins: prepares a version's folder, in a thread, and hands it to the supervisor."""

    def __init__(self, supervisor: Supervisor, generations: Generations) -> None:
        self._supervisor = supervisor
        self._generations = generations
        self._preparing = ""
        self.reject = supervisor.reject
        self.accept = supervisor.accept
        self.remove = supervisor.remove

    async def apply(self, loaded: Loaded, digest: str) -> None:
        """One at a time: the drop-ins are one task."""
        self._preparing = loaded.function.metadata.name
        try:
            folder = await self._prepare(loaded)
            self._supervisor.apply(Version(loaded.function, folder, str(loaded.source), digest))
        finally:
            self._preparing = ""

    async def _prepare(self, loaded: Loaded) -> Path:
        try:
            return await asyncio.to_thread(self._generations.prepare, loaded)
        except CannotPrepare as error:
            name = loaded.function.metadata.name
            what = f"cannot prepare function {name!r}: {_reason_of(error)}"
            raise CannotPrepare(what, where=error.where, fix="it is tried again by itself") from error

    def gone(self, name: str) -> None:
        """The last process of a function has ended. What is being prepared under its name must not be swept with it."""
        if name != self._preparing:
            self._generations.forget(name)


def _reason_of(error: CannotPrepare) -> str:
    """What the system said. A tree that cannot be copied fails with a list of files: the first, and how many more."""
    cause = error.__cause__
    if isinstance(cause, shutil.Error) and cause.args and isinstance(cause.args[0], list) and cause.args[0]:
        (_, _, why), *others = cause.args[0]
        more = f", and {len(others)} more files" if others else ""
        return re.sub(r"^\[Errno \d+\] ", "", str(why)) + more
    return getattr(cause, "strerror", None) or error.what


def _folders(configuration: Configuration) -> tuple[Path, Path, Path]:
    """The functions, state and run folders, made where they are missing."""
    made = []
    for name, mode in (("functions", 0o755), ("state", 0o711), ("run", 0o755)):
        path = Path(getattr(configuration.paths, name))
        try:
            if shared_place() in path.parents:
                private_folder(shared_place(), f"--{_OPTIONS[name]}")
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(
                f"the {name} folder cannot be made: {error.strerror}", where=str(path), fix=f"give --{_OPTIONS[name]}"
            ) from error
        made.append(path)
    return made[0], made[1], made[2]


_OPTIONS = {"functions": "functions-dir", "state": "state-dir", "run": "run-dir"}


def _sweep(records: Records, generations: Generations, run: Path) -> None:
    """End and remove what an agent left that was killed: processes first, then what they had open."""
    records.sweep()
    generations.sweep()
    calls = run / "calls"
    calls.mkdir(exist_ok=True)
    for path in calls.glob("*.sock"):
        path.unlink(missing_ok=True)
    _sweep_segments()


def _sweep_segments() -> None:
    from shmem import segment

    removed = segment.sweep()
    if removed:
        logger.warning("removed shared memory of processes that are gone", segments=removed)


def _policy(given: Supervision) -> Policy:
    return Policy(
        first_s=float(given.restart_delay),
        longest_s=float(given.restart_delay_max),
        stable_s=float(given.stable_after),
        limit=given.crash_limit,
        parked_s=float(given.parked_retry),
    )


def _announce(run: Path, address: tuple[str, int]) -> None:
    """Where the admin listener is, for whoever finds the run folder."""
    host, port = address
    atomic.write(run / "admin.json", msgspec.json.encode({"host": host, "port": port, "pid": os.getpid()}))
    logger.info("admin listener is open", url=f"http://{host}:{port}")


def _started(supervisor: Supervisor, functions: Path) -> None:
    """What was in the folder is being started: this is as ready as the agent itself gets."""
    notify("READY=1", f"STATUS=watching {functions}, {len(supervisor.functions)} functions")
    logger.info("watching", folder=str(functions), functions=len(supervisor.functions))
    gc.collect()
    gc.freeze()  # what lives now lives as long as the agent: never walk through it again
