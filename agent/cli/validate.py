"""`headrace validate`: checks specifications, and the handlers they name, without running anything.

Prints `file:line:column: error|warning|info: key: text; fix`, which editors and CI systems can jump to.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli.python_code import code_findings
from agent.model.errors import EXIT_CONFIGURATION, SpecError
from agent.model.findings import Finding, InvalidSpec, Place
from agent.model.load import load_function
from agent.model.positions import LARGEST_FILE
from agent.model.source import CONFIG_NAMES, CONFIG_SUFFIXES, source_files

SKIPPED = frozenset(["node_modules", "__pycache__", "venv", "site-packages"])

_LOOKS_LIKE_A_FUNCTION = re.compile(
    rb"^(spec\s*:|kind\s*:\s*NuclioFunction|apiVersion\s*:\s*[\"']?nuclio)", re.M | re.I
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a function, or a folder to search")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON array")


def run(args: argparse.Namespace) -> int:
    findings: list[Finding] = []
    checked = 0
    for path in args.paths:
        for function in functions_under(path):
            checked += 1
            findings += check(function)
        if not checked and path.is_dir():
            findings.append(Finding("error", "no function in this folder", Place(str(path))))
    if args.json:
        print(json.dumps([_as_dict(item) for item in findings], indent=1, ensure_ascii=False))
    else:
        for item in findings:
            print(item)
    errors, warnings = _count(findings, "error"), _count(findings, "warning")
    print(f"functions: {checked}, errors: {errors}, warnings: {warnings}", file=sys.stderr)
    return EXIT_CONFIGURATION if errors or (args.strict and warnings) else 0


def functions_under(path: Path) -> Iterator[Path]:
    """The path itself unless it is a folder to search: then every specification below it, in order of their names. A
    folder without any whose source files could be a function is one, as it is for `headrace run`.
    """
    if not path.is_dir():
        yield path
        return
    found = False
    for specification in _specifications_under(path):
        found = True
        yield specification
    if not found and source_files(path):
        yield path


def _specifications_under(path: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in SKIPPED)
        own = next((name for name in CONFIG_NAMES if name in files), None)
        if own:
            yield Path(folder, own)
        for name in sorted(files):
            file = Path(folder, name)
            if name not in CONFIG_NAMES and not name.startswith(".") and _is_drop_in(file):
                yield file


def _is_drop_in(file: Path) -> bool:
    """A YAML or JSON file under another name, that by its first words describes a function."""
    if file.suffix.lower() not in CONFIG_SUFFIXES or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            text = stream.read(LARGEST_FILE)
    except OSError:
        return False
    if text.lstrip().startswith(b"{"):
        try:
            return "spec" in json.loads(text)
        except (ValueError, RecursionError):
            return b'"NuclioFunction"' in text
    return _LOOKS_LIKE_A_FUNCTION.search(text) is not None


def check(path: Path) -> list[Finding]:
    """Everything there is to say about one function."""
    try:
        loaded = load_function(path)
    except InvalidSpec as error:
        return error.findings
    except SpecError as error:
        return [_finding(error, path)]
    code = code_findings(loaded)
    told = {(item.key, item.what) for item in code}
    spec = [item for item in loaded.warnings + loaded.notes if (item.key, item.what) not in told]
    return sorted(spec, key=lambda item: (item.place.line, item.place.column)) + code


def _finding(error: SpecError, path: Path) -> Finding:
    place = re.fullmatch(r"(.*?):(\d+):(\d+)", error.where)
    if place is None:
        return Finding("error", error.what, Place(error.where or str(path)), fix=error.fix)
    return Finding("error", error.what, Place(place[1], int(place[2]), int(place[3])), fix=error.fix)


def _as_dict(item: Finding) -> dict[str, Any]:
    where = {"file": item.place.file, "line": item.place.line, "column": item.place.column}
    return {"level": item.level, **where, "key": item.key, "what": item.what, "fix": item.fix}


def _count(findings: list[Finding], level: str) -> int:
    return sum(item.level == level for item in findings)
