"""Logging, set up in one place: loguru, with the standard library's loggers led into it.

Flow: `log.warning("worker restarted", worker=2)` or a library's logger -> [this] -> one line on a stream.
Promise: one event is one line (a traceback follows its line in the human form, and is a field in JSON); fields stand
after the message as key=value; colour only on a terminal.
"""

from __future__ import annotations

import json as json_text
import logging
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
LEVELS = ("trace", "debug", "info", "warning", "error", "critical")

_NEEDS_QUOTES = re.compile(r"[\s\"'=\\\x00-\x1f\x7f-\x9f]|^$")


def configure(level: str = "info", stream: TextIO | None = None, json: bool = False) -> None:
    """Send every record at or above `level` to `stream` (standard error), as text or as one JSON object a line.

    Replaces what an earlier call set up. Raises ValueError for a level that is not one of LEVELS (or `warn`).
    """
    target = stream if stream is not None else sys.stderr
    name = {"warn": "WARNING"}.get(level.lower(), level.upper())
    if name.lower() not in LEVELS:
        raise ValueError(f"no log level {level!r}; known: {', '.join(LEVELS)}")
    logger.remove()
    logger.add(_writer(target, json), level=name, format=_unused_format, backtrace=False, diagnose=False)
    threshold = logger.level(name).no
    logging.basicConfig(handlers=[_Intercept()], level=max(threshold, logging.DEBUG), force=True)


def _unused_format(record: Record) -> str:
    return ""


def _writer(stream: TextIO, json: bool) -> Callable[[Message], None]:
    colour = not json and stream.isatty()

    def write(message: Message) -> None:
        record = message.record
        stream.write((_as_json(record) if json else _as_text(record, colour)) + "\n")
        stream.flush()

    return write


def _as_text(record: Record, colour: bool) -> str:
    level = record["level"].name
    head = f"{record['time']:YYYY-MM-DD HH:mm:ss.SSS} {level:<8}"
    if colour and level in COLOURS:
        head = f"{COLOURS[level]}{head}\x1b[0m"
    fields = "".join(f" {key}={_shown(value)}" for key, value in record["extra"].items())
    trace = _trace(record)
    return f"{head} {_one_line(record['message'])}{fields}" + (f"\n{trace}" if trace else "")


def _as_json(record: Record) -> str:
    line: dict[str, Any] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name.lower(),
        "message": record["message"],
    }
    for key, value in record["extra"].items():
        line[f"{key}_" if key in line else key] = value
    trace = _trace(record)
    if trace:
        line["exception"] = trace
    return json_text.dumps(line, default=str, ensure_ascii=False)


def _trace(record: Record) -> str:
    exception = record["exception"]
    if exception is None or exception.type is None:
        return ""
    return "".join(traceback.format_exception(exception.type, exception.value, exception.traceback)).rstrip()


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return json_text.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text


def _one_line(text: str) -> str:
    """Nobody forges a second line of the log, nor moves the cursor of whoever reads it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Intercept(logging.Handler):
    """Hands a record of the standard library's logging to loguru, with the name of its logger as a field."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        # without arguments loguru formats nothing: braces in the message stay as they are
        logger.bind(logger=record.name).opt(exception=record.exc_info).log(level, record.getMessage())
