"""`headrace run PATH`: one function in the foreground, without an agent. Ctrl-C ends it and leaves nothing behind."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agent.logging_setup import configure
from agent.model.errors import CommandError, SpecError
from agent.model.listen import Address, addresses_of, holder, listening, open_listener
from agent.model.load import Loaded, embedded_source, load_function
from agent.model.private import private_folder
from agent.model.spec import Function
from agent.processor.config import ProcessorConfig
from agent.processor.run import run_to_end
from shmem.segment import sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to run, and what to change about it."""
    parser.add_argument("path", type=Path, help="a folder with function.yaml, a specification, or a source file")
    parser.add_argument("-p", "--port", type=int, help="port of the http trigger (default: the specification's)")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable")
    parser.add_argument("--state-dir", type=Path, help="keep the triggers' state here (default: forgotten at the end)")
    parser.add_argument("--calls-dir", type=Path, help="where functions find each other for call_function")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def run(args: argparse.Namespace) -> int:
    """Serve in the foreground until Ctrl-C. Raises AgentError."""
    configure(args.log_level.upper(), sys.stderr)
    loaded = load_function(args.path, overrides=_overrides(args))
    for finding in loaded.warnings:
        print(finding, file=sys.stderr)
    sweep()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-run-")))
        calls_dir = Path(args.calls_dir or _default_calls_dir()).resolve()
        config = ProcessorConfig(
            function=loaded.function,
            code_dir=_code_dir(loaded, folder),
            state_dir=(args.state_dir or folder / "state").resolve(),
            calls_dir=str(calls_dir),
            listeners=_listeners(loaded.function, args.port, calls_dir, stack),
        )
        os.chdir(config.code_dir)  # where a relative path of the function leads, its workers' folder too
        return run_to_end(config)


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    env = []
    for item in args.env:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise CommandError(f"--env {item!r} is not NAME=VALUE")
        env.append({"name": name, "value": value})
    return {"spec": {"env": env}} if env else {}


def _code_dir(loaded: Loaded, folder: Path) -> Path:
    source = embedded_source(loaded.function)
    if source is None:
        if loaded.code_dir is None:
            raise SpecError("there is no code", where=str(loaded.source), fix="set build.path or functionSourceCode")
        return loaded.code_dir.resolve()
    code = folder / "code"
    code.mkdir()
    (code / source[0]).write_bytes(source[1])
    return code


def _default_calls_dir() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        base = str(private_folder(Path(tempfile.gettempdir(), f"headrace-{os.getuid()}"), "--calls-dir"))
    return private_folder(Path(base, "headrace-calls"), "--calls-dir")


def _listeners(
    function: Function, port: int | None, calls_dir: Path, stack: ExitStack
) -> dict[str, list[socket.socket]]:
    """The http trigger's sockets: its own addresses, and the one through which other functions call this one."""
    opened: dict[str, list[socket.socket]] = {}
    for trigger in function.spec.triggers.values():
        if not listening(trigger) or trigger.disabled:
            continue
        called = _calls(function.metadata.name, calls_dir, stack)  # first: who holds it says more than who has the port
        wanted = [_at_port(item, port) for item in addresses_of(trigger)]
        opened[trigger.name] = [*(_own(item, trigger.name, stack) for item in wanted), called]
    return opened


def _at_port(address: Address, port: int | None) -> Address:
    return address if port is None or address.path else Address(address.host, port)


def _calls(function: str, calls_dir: Path, stack: ExitStack) -> socket.socket:
    address = Address(path=str(calls_dir / f"{function}.sock"))
    try:
        calls_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return stack.enter_context(_open(address))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"a function named {function!r} runs already: it answers at {address}",
                fix="end that one, or give this one another --calls-dir, where others then find it",
            ) from error
        what = f"functions cannot call one another through {calls_dir}: {error.strerror}"
        raise CommandError(what, fix="give another folder with --calls-dir") from error


def _own(address: Address, trigger: str, stack: ExitStack) -> socket.socket:
    try:
        return stack.enter_context(_open(address))
    except OSError as error:
        why = f"it is taken by {holder(address)}" if error.errno == errno.EADDRINUSE else error.strerror
        raise CommandError(
            f"trigger {trigger!r} cannot listen on {address}: {why}", fix=_advice(error, address)
        ) from error


def _advice(error: OSError, address: Address) -> str:
    if address.path:
        return "give another `socket`, in a folder that exists and may be written"
    if error.errno == errno.EACCES and address.port < 1024:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose one from 1024 on with --port"
    if error.errno == errno.EADDRINUSE:
        return "choose another one with --port, or end that program"
    return "give a `host` that is an address of this machine, and a free port"


@contextmanager
def _open(address: Address) -> Iterator[socket.socket]:
    """A listening socket; afterwards its path is gone, too, unless somebody else has put something there."""
    path = os.path.abspath(address.path) if address.path else ""  # the working directory changes meanwhile
    with open_listener(address) as opened:
        made = _identity(path)
        try:
            yield opened
        finally:
            if made is not None and _identity(path) == made:
                os.unlink(path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
