"""`headrace dead-letters`: see, save, handle again or throw away the events whose last attempt has failed.

Works on the state folder of one function, whether an agent runs it or not.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.model.duration import parse_duration
from agent.model.errors import CommandError
from agent.processor.delivery import letters
from agent.processor.delivery.codec import Damaged, decode_event
from agent.processor.delivery.letters import Head
from agent.processor.delivery.visit import changing, looking, ring

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An action, the function, and which of its letters."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "list": "one line for each",
        "show": "the whole event as JSON",
        "replay": "have the function handle them again; those that succeed are removed",
        "export": "events as JSON lines",
        "purge": "throw them away",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("function", help="name of the function, or its state folder")
        action.add_argument("--state-dir", metavar="D", help="of the agent")
        action.add_argument("--config", type=Path, metavar="FILE", help="the agent's")
        action.add_argument("--trigger", metavar="T", help="of this trigger only")
        if name != "list":
            action.add_argument("ids", nargs="*", type=int, metavar="ID")
        if name in ("replay", "purge"):
            action.add_argument("--all", action="store_true", help="every one of them")
            action.add_argument("--older-than", metavar="AGE", help="those that failed longer ago, such as 24h")
        if name == "list":
            action.add_argument("--json", action="store_true", help="JSON lines")
        if name == "export":
            action.add_argument("--output", type=Path, metavar="FILE", help="instead of the standard output")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises CommandError when there is no store, no such letter, or nothing was chosen."""
    actions = {"list": _list, "show": _show, "replay": _replay, "export": _export, "purge": _purge}
    return actions[args.action](args, _state_folder(args))


def _list(args: argparse.Namespace, folder: Path) -> int:
    with looking(folder) as database:
        found = list(_chosen(database, args))
    if args.json:
        for head in found:
            print(json.dumps(_described(head)))
        return 0
    if not found:
        print("no dead letters")
        return 0
    print(f"{'ID':>6}  {'FAILED':<19}  {'TRIGGER':<16}  {'ATTEMPTS':>8}  {'BYTES':>9}  REASON")
    for head in found:
        failed = datetime.fromtimestamp(head.failed_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
        reason = ("will be handled again; " if head.replay else "") + _printable(head.reason)
        print(f"{head.id:>6}  {failed}  {head.trigger:<16}  {head.attempts:>8}  {head.size:>9}  {reason[:100]}")
    return 0


def _show(args: argparse.Namespace, folder: Path) -> int:
    _require_choice(args)
    with looking(folder) as database:
        for head in _chosen(database, args):
            print(json.dumps(_whole(database, head), indent=2, ensure_ascii=False))
    return 0


def _export(args: argparse.Namespace, folder: Path) -> int:
    with looking(folder) as database:
        lines = (json.dumps(_whole(database, head)) + "\n" for head in _chosen(database, args))
        if args.output is None:
            sys.stdout.writelines(lines)
            return 0
        try:
            # What a message holds is for its owner only.
            with os.fdopen(os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.writelines(lines)
        except OSError as error:
            raise CommandError(f"cannot be written: {error.strerror}", where=str(args.output)) from error
    return 0


def _replay(args: argparse.Namespace, folder: Path) -> int:
    _require_choice(args)
    with changing(folder) as database:
        count = letters.mark_for_replay(database, [head.id for head in _chosen(database, args)])
    when = "now" if ring(folder) else "when the function starts"
    print(f"{count} to be handled again {when}")
    return 0


def _purge(args: argparse.Namespace, folder: Path) -> int:
    _require_choice(args)
    with changing(folder) as database:
        count = letters.purge(database, [head.id for head in _chosen(database, args)])
    print(f"{count} removed")
    return 0


def _chosen(database: sqlite3.Connection, args: argparse.Namespace) -> Iterator[Head]:
    """Those asked for. Raises CommandError for a number there is no letter of."""
    ids = getattr(args, "ids", [])
    age = getattr(args, "older_than", None)
    before_ns = _now_ns() - _age_ns(age) if age else None
    found = list(letters.heads(database, ids))
    missing = set(ids) - {head.id for head in found}
    if missing:
        raise CommandError(f"no dead letter {', '.join(map(str, sorted(missing)))}", fix="see `list`")
    for head in found:
        if (not args.trigger or head.trigger == args.trigger) and (before_ns is None or head.failed_ns < before_ns):
            yield head


def _require_choice(args: argparse.Namespace) -> None:
    """Nothing chosen must not mean everything."""
    if not (args.ids or getattr(args, "all", False) or getattr(args, "older_than", None)):
        more = "" if args.action == "show" else ", or --all, or --older-than"
        raise CommandError("which ones?", fix=f"give numbers from `list`{more}")


def _now_ns() -> int:
    return int(datetime.now().timestamp() * 1e9)


def _age_ns(text: str) -> int:
    try:
        return int(parse_duration(text) * 1e9)
    except ValueError as error:
        raise CommandError(f"{text!r} is no duration", where="--older-than", fix="write for example 24h") from error


def _whole(database: sqlite3.Connection, head: Head) -> dict[str, Any]:
    """The letter with its event: text as text, bytes that are none as base64."""
    try:
        event = decode_event(letters.event_of(database, head.id))
    except Damaged as error:
        return _described(head) | {"damaged": str(error)}
    values = {name: getattr(event, name) for name in event.__slots__}
    return _described(head) | {
        "event": {name: _plain(value) for name, value in values.items() if value not in ("", b"")}
    }


def _described(head: Head) -> dict[str, Any]:
    """Times as text."""
    values = head._asdict()
    for name in ("received_ns", "failed_ns"):
        moment = datetime.fromtimestamp(values.pop(name) / 1e9).astimezone()
        values[name.removesuffix("_ns")] = moment.isoformat(timespec="milliseconds")
    return values | {"replay": bool(head.replay)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text)


def _state_folder(args: argparse.Namespace) -> Path:
    """Where the function keeps its state: a folder that was given, or below the agent's."""
    given: Path = Path(args.function)
    for folder in (given, given / "state"):
        if (folder / "delivery.db").exists():
            return folder
    if len(given.parts) > 1 or given.is_absolute():
        return given
    from agent.configuration import default_file, load_configuration

    paths = {"state": args.state_dir} if args.state_dir else {}
    configuration, _ = load_configuration(args.config or default_file(), os.environ, {"paths": paths})
    return Path(configuration.paths.state) / "functions" / str(args.function) / "state"
