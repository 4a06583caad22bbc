"""`headrace version`: which release this is, and on what it runs."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    try:
        release = version("headrace")
    except PackageNotFoundError:
        release = "(not installed)"
    print(f"headrace {release}, Python {platform.python_version()}, {platform.machine()}")
    return 0
