"""The command `headrace`: finds the chosen command, and turns every error into one clear line and an exit code.

A command is a module of this folder with `add_arguments(parser)` and `run(args) -> exit code`. Only the chosen one is
imported, so that `headrace processor`, which the agent starts often, pays for nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from agent.model.errors import AgentError

INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports for a program that SIGINT or SIGPIPE ended."""


class Command(NamedTuple):
    name: str
    module: str
    help: str
    example: str


COMMANDS = (
    Command("run", "agent.cli.run", "run one function in the foreground", "headrace run hello.py"),
    Command("demo", "agent.cli.demo", "five functions, fed by real sources, in a live table", "headrace demo"),
    Command("agent", "agent.cli.agent", "the daemon: keep functions running", "headrace agent --config agent.yaml"),
    Command("validate", "agent.cli.validate", "check function specifications", "headrace validate functions.d/"),
    Command("schema", "agent.cli.schema", "print the JSON Schema of function.yaml", "headrace schema > function.json"),
    Command(
        "dead-letters", "agent.cli.deadletters", "events that could not be handled", "headrace dead-letters list hello"
    ),
    Command("processor", "agent.cli.processor", "serve one function; the agent starts it", "headrace processor DIR"),
    Command("version", "agent.cli.version", "print the version", "headrace version"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 what the person gave cannot be used, 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`; its errors as one clear line on stderr and the code that belongs to them."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except AgentError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader (`| head`) is gone; what is still buffered must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "help"
    if name in ("help", "--help", "-h"):
        print(overview())
        return 0
    if name in ("--version", "-V"):
        name = "version"
    command = next((item for item in COMMANDS if item.name == name), None)
    if command is None:
        _complain(f"no command {name!r}; there are {', '.join(item.name for item in COMMANDS)}")
        return 2
    return _run(command, arguments[1:])


def _run(command: Command, arguments: list[str]) -> int:
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(
        prog=f"headrace {command.name}", description=f"{command.help[0].upper()}{command.help[1:]}."
    )
    module.add_arguments(parser)
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as done:  # argparse has printed its help, or what is wrong
        return done.code if isinstance(done.code, int) else 2
    return int(module.run(parsed))


def overview() -> str:
    """The help of `headrace` itself: every command with an example."""
    lines = ["Headrace runs functions on events from HTTP, MQTT, serial lines, files and timers.", ""]
    lines += ["usage: headrace COMMAND [options]", ""]
    width = max(len(item.name) for item in COMMANDS)
    for item in COMMANDS:
        lines += [f"  {item.name:<{width}}  {item.help}", f"  {'':<{width}}    {item.example}"]
    return "\n".join([*lines, "", "headrace COMMAND --help tells the options of one command."])


def _complain(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stderr
    label = "\x1b[31mheadrace:\x1b[0m" if stream.isatty() and "NO_COLOR" not in os.environ else "headrace:"
    print(f"{label} {text}", file=stream)


if __name__ == "__main__":
    sys.exit(main())
