"""The function's own stream: its log records and what it prints. Kept apart from the processor's log, and bounded.

Flow: lane -> [function log] -> a file that rotates (under an agent) or a terminal (in the foreground).
Promise: a function that logs without end costs bounded disk and bounded work; how much was left out is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any

LEVELS = ("debug", "info", "warn", "error")
_NUMBERS = {"debug": 0, "info": 1, "warn": 2, "warning": 2, "error": 3}
_LARGEST_FILE = 1 << 20
_FLUSH_S = 0.2
_LINES_A_SECOND = 500
_BURST = 2000


class FunctionLog:
    """Writes JSON lines to `path` (two files of at most 1 MiB), or readable lines to stdout when `path` is None."""

    def __init__(self, function: str, level: str, path: Path | None) -> None:
        self.function = function
        self._level = self.level_number(level)
        self._path = path = path.resolve() if path else None  # rotation renames the file, not a link to it
        self._size = path.stat().st_size if path and path.exists() else 0
        self._file: IO[str] = _opened(path) if path else sys.stdout
        self._tokens = float(_BURST)
        self._filled = time.monotonic()
        self._suppressed = 0
        self._flushing = False

    @staticmethod
    def level_number(level: str) -> int:
        """0 debug, 1 info, 2 warn, 3 error; unknown names count as debug."""
        return _NUMBERS.get(level.lower(), 0)

    def record(self, worker: int, level: int, time_ns: int, message: str, fields: bytes) -> dict[str, Any]:
        """Write one record of the function's logger; returns it flat, as X-Nuclio-Logs shows it."""
        record: dict[str, Any] = {
            "time": time_ns // 1_000_000,
            "level": LEVELS[min(level, 3)],
            "message": message,
            "name": self.function,
        }
        if fields:
            record = record | _fields(fields) | record  # what it says of itself stands, whatever its fields are called
        if level >= self._level:
            self._write(worker, record)
        return record

    def line(self, worker: int, text: str) -> None:
        """Write one line the function printed."""
        self._write(worker, {"time": time.time_ns() // 1_000_000, "level": "print", "message": text})

    def close(self) -> None:
        """Write what is held back."""
        self._flush()
        if self._path:
            self._file.close()

    def _write(self, worker: int, record: dict[str, Any]) -> None:
        if not self._allowed():
            self._suppressed += 1
            return
        self._say_suppressed()
        self._put(worker, record)

    def _say_suppressed(self) -> None:
        if self._suppressed:
            count, self._suppressed = self._suppressed, 0
            self._put(
                -1, {"time": time.time_ns() // 1_000_000, "level": "warn", "message": f"suppressed {count} lines"}
            )

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * _LINES_A_SECOND)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _put(self, worker: int, record: dict[str, Any]) -> None:
        text = json.dumps(record | {"worker": worker}, default=str) if self._path else _readable(record)
        try:
            self._file.write(text + "\n")
        except (OSError, ValueError):
            return  # a full disk or a closed terminal is not a reason to stop handling events
        self._size += len(text) + 1
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._say_suppressed()
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()
        if self._path and self._size > _LARGEST_FILE:
            self._rotate(self._path)

    def _rotate(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            os.replace(path, path.with_name(path.name + ".1"))
        self._file = _opened(path)
        self._size = 0


def _opened(path: Path) -> IO[str]:
    """To append, and the owner's alone: functions log what is in their events."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o600)  # one from an earlier time
    return open(descriptor, "a", encoding="utf-8")


def _fields(text: bytes) -> dict[str, Any]:
    """The record's own fields; none when they are no JSON object, or one nested too deep."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _readable(record: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(record["time"] / 1000).strftime("%H:%M:%S.%f")[:-3]
    fields = {name: value for name, value in record.items() if name not in ("time", "level", "message", "name")}
    tail = "  " + " ".join(f"{name}={value}" for name, value in fields.items()) if fields else ""
    return f"{moment} {record['level']:<5} {record['message']}{tail}"
