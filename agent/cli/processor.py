"""`headrace processor DIR`: one function as its agent, a container or a debugger runs it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from agent.cli.main import guarded
from agent.logging_setup import configure
from agent.model.generated import dump_processor_yaml, read_generated
from agent.model.load import load_processor
from agent.model.registry import trigger_kind
from agent.model.runtime import runtime_for
from agent.model.spec import Function, FunctionSpec, Metadata
from agent.processor.config import ProcessorConfig, inherited_listeners, take_environment
from agent.processor.run import rehearse, run_to_end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, with processor.yaml and code/ in it."""
    parser.add_argument("dir", type=Path, help="folder with processor.yaml, code/ and state/")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Exit code 0 after a drain, 2 when a restart would not heal it."""
    configure(os.environ.get("HEADRACE_LOG_LEVEL", "INFO"), sys.stderr)
    return _serve(Path(args.dir).resolve())


def run_folder(folder: str) -> int:
    """The whole of a forked processor: as `headrace processor FOLDER`, with the log as the agent has set it up.

    Every function called here is memory that this processor no longer shares: so no parser, no second set-up.
    """
    return guarded(lambda: _serve(Path(folder)))


def _serve(folder: Path) -> int:
    given = take_environment(("HEADRACE_AGENT_FD", "HEADRACE_LISTEN", "HEADRACE_CALLS_DIR", "HEADRACE_NURSERY_FD"))
    config = ProcessorConfig(
        function=load_processor(folder / "processor.yaml"),
        code_dir=(folder / "code").resolve(),
        state_dir=folder / "state",
        log_file=folder / "function.log" if given["HEADRACE_AGENT_FD"] else None,
        calls_dir=given["HEADRACE_CALLS_DIR"],
        link_fd=int(given["HEADRACE_AGENT_FD"] or -1),
        nursery_fd=int(given["HEADRACE_NURSERY_FD"] or -1),
        listeners=inherited_listeners(given["HEADRACE_LISTEN"]),
    )
    os.chdir(config.code_dir)  # where a relative path of the function leads, its workers' folder too
    return run_to_end(config)


PRELOADED = ("http", "cron")
"""Trigger kinds that the nursery imports; the others are imported by the processors that use them."""


def preload() -> None:
    """Import what most processors need, and run an event loop once: what that sets up is then shared by all forks."""
    import encodings.idna  # noqa: F401  # asked for by name resolution, large

    for kind in PRELOADED:
        trigger_kind(kind)
    runtime_for("python")
    _decode_once()
    rehearse()


def _decode_once() -> None:
    """What msgspec works out of a spec's types at their first use is kept with them."""
    trigger = trigger_kind("http").spec(kind="http", name="t")
    function = Function(metadata=Metadata(name="a"), spec=FunctionSpec(triggers={"t": trigger}))
    read_generated(dump_processor_yaml(function), "a rehearsal")
