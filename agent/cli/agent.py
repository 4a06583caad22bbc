"""`headrace agent`: the daemon of this device, in the foreground, as systemd and people start it."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from agent.nursery.processors import Nursery


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options win over the environment (HEADRACE__SECTION__KEY), which wins over the file."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="default: agent.yaml in /etc/headrace, if it is there"
    )
    parser.add_argument("--functions-dir", metavar="D", help="function.yaml files, folders and .py files put here run")
    parser.add_argument("--state-dir", metavar="D", help="what must survive a reboot")
    parser.add_argument("--run-dir", metavar="D", help="sockets and folders of running functions")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; exit code 0 after a drain. Raises AgentError when it cannot start."""
    # First of all, while nothing of ours and nothing of a function's is imported: workers are forked from here.
    from runtimes.python import nursery

    with nursery.start() as workers:
        return _serve(args, workers)


def _serve(args: argparse.Namespace, workers: socket.socket) -> int:
    from loguru import logger

    from agent.configuration import default_file, load_configuration
    from agent.daemon import run_agent
    from agent.logging_setup import configure

    configuration, warnings = load_configuration(args.config or default_file(), os.environ, _given(args))
    configure(configuration.logging.level.upper(), sys.stderr)
    for warning in warnings:
        logger.warning("configuration has a problem", file=str(warning.place), problem=warning.message)
    if not configuration.supervisor.nursery:
        asyncio.run(run_agent(configuration))
        return 0
    with _processors(workers) as processors:
        asyncio.run(run_agent(configuration, Nursery(processors, workers).fork))
    return 0


def _processors(workers: socket.socket) -> socket.socket:
    """The nursery of processors, with the modules that most of them need."""
    from agent.cli import processor
    from agent.nursery.processors import start

    processor.preload()
    return start(processor.run_folder, workers)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    folders = {"functions": args.functions_dir, "state": args.state_dir, "run": args.run_dir}
    return {"paths": {name: path for name, path in folders.items() if path}}
