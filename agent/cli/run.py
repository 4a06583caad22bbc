"""`headrace run PATH`: one function in the foreground, without an agent. Ctrl-C ends it and leaves nothing behind."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent.logging_setup import configure
from agent.model.errors import CommandError, SpecError
from agent.model.listen import Address, address_of, listening, open_listener
from agent.model.load import Loaded, embedded_source, load_function
from agent.model.private import private_folder
from agent.model.spec import Function, TriggerSpec
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
    """The http trigger's sockets: its own address, and the one through which other functions call this one."""
    opened: dict[str, list[socket.socket]] = {}
    for trigger in function.spec.triggers.values():
        if not listening(trigger) or trigger.disabled:
            continue
        own = stack.enter_context(_open(_address(trigger, port), trigger))
        calls = calls_dir / f"{function.metadata.name}.sock"
        calls_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        called = stack.enter_context(_open(Address(path=str(calls)), trigger))
        stack.callback(calls.unlink, missing_ok=True)
        opened[trigger.name] = [own, called]
    return opened


def _address(trigger: TriggerSpec, port: int | None) -> Address:
    address = address_of(trigger)
    return address if port is None or address.path else Address(address.host, port)


def _open(address: Address, trigger: TriggerSpec) -> socket.socket:
    try:
        return open_listener(address)
    except OSError as error:
        raise CommandError(
            f"trigger {trigger.name!r} cannot listen on {address}: {error.strerror}",
            fix="choose another one with --port, or end the program that uses it",
        ) from error
