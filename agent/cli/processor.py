"""`headrace processor DIR`: one function as its agent, a container or a debugger runs it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from agent.cli.main import main
from agent.logging_setup import configure
from agent.model.load import load_processor
from agent.processor.config import ProcessorConfig, inherited_listeners, take_environment
from agent.processor.run import run_to_end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, with processor.yaml and code/ in it."""
    parser.add_argument("dir", type=Path, help="folder with processor.yaml, code/ and state/")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Exit code 0 after a drain, 2 when a restart would not heal it."""
    configure(os.environ.get("HEADRACE_LOG_LEVEL", "INFO"), sys.stderr)
    given = take_environment(("HEADRACE_AGENT_FD", "HEADRACE_LISTEN", "HEADRACE_CALLS_DIR", "HEADRACE_NURSERY_FD"))
    folder = Path(args.dir).resolve()
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


def run_folder(folder: str) -> int:
    """The whole of a processor that was forked: what `headrace processor FOLDER` does, errors told the same way."""
    return main(["processor", folder])
