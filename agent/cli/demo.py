"""`headrace demo`: five example functions fed by real parts, in a table. Leaves nothing behind."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from agent.demo.run import Options, run_demo
from agent.model.duration import parse_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, and what to show."""
    parser.add_argument("--for", dest="for_s", type=_seconds, metavar="20s", help="end by itself after this time")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON document at the end")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder and leave it there")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when every source was handled and nothing was lost. Raises AgentError."""
    return asyncio.run(run_demo(Options(args.for_s, args.as_json, args.keep)))


def _seconds(text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write it as 20s, 500ms or 1m30s") from error
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time to run for; write it as 20s, 500ms or 1m30s")
    return seconds
