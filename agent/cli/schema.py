"""`headrace schema`: the JSON Schema of function.yaml, for editors that complete and check while one types."""

from __future__ import annotations

import argparse
import json
import sys

from agent.model.schema import function_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    sys.stdout.write(schema_text())
    return 0


def schema_text() -> str:
    """What `configs/function.schema.json` holds."""
    return json.dumps(function_schema(), indent=1, ensure_ascii=False) + "\n"
