"""The function's logger: `context.logger`.

Flow: handler -> Logger -> outputs by name. In a worker the output called "default" is the channel to the processor;
`set_handler` replaces it or adds files.
Promise: logging never raises into a handler, whatever the message, its arguments or its fields are. A record below
the level costs one comparison: nothing is formatted.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Output = Callable[[int, str, dict[str, Any]], None]
    """Gets level, finished message and fields. Must not raise."""

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40  # as in the standard library's logging
LEVELS = {"debug": DEBUG, "info": INFO, "warn": WARNING, "warning": WARNING, "error": ERROR}


def __getattr__(name: str) -> Any:
    if name in ("JSONFormatter", "HumanReadableFormatter"):
        from . import log_formatters

        return getattr(log_formatters, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def level_of(level: int | str) -> int:
    """The number of a level given by number or by name, in any case; an unknown name means everything."""
    return level if isinstance(level, int) else LEVELS.get(level.lower(), DEBUG)


def formatted(message: Any, args: tuple[Any, ...]) -> str:
    """`message % args` as logging does it; where they do not fit, the message followed by the arguments."""
    try:
        text = message if type(message) is str else str(message)
        if not args:
            return text
        if len(args) == 1 and args[0] and isinstance(args[0], dict):
            return text % args[0]
        return text % args
    except Exception:
        return " ".join(_text_of(item) for item in (message, *args))


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without text>"


class Logger:
    """Four levels, each with a variant that takes fields. Safe to use from any thread."""

    def __init__(self, level: int | str, name: str = "nuclio_sdk") -> None:
        self.name = name
        self.level = level_of(level)
        self.outputs: dict[str, Output] = {}
        self._bound: dict[str, Any] = {}

    def bind(self, **fields: Any) -> None:
        """Add these fields to every later record; they win over a record's own field of the same name."""
        self._bound.update(fields)

    def set_handler(self, handler_name: str, file: Any, formatter: Any) -> None:
        """Write records to `file` as `formatter` (of the standard library's kind) formats them."""
        from .log_formatters import file_output

        self.outputs[handler_name] = file_output(self.name, file, formatter)

    def debug(self, message: Any, *args: Any) -> None:
        if self.level <= DEBUG:
            self._write(DEBUG, message, args, {})

    def info(self, message: Any, *args: Any) -> None:
        if self.level <= INFO:
            self._write(INFO, message, args, {})

    def warn(self, message: Any, *args: Any) -> None:
        if self.level <= WARNING:
            self._write(WARNING, message, args, {})

    def error(self, message: Any, *args: Any) -> None:
        if self.level <= ERROR:
            self._write(ERROR, message, args, {})

    def debug_with(self, message: Any, *args: Any, **fields: Any) -> None:
        if self.level <= DEBUG:
            self._write(DEBUG, message, args, fields)

    def info_with(self, message: Any, *args: Any, **fields: Any) -> None:
        if self.level <= INFO:
            self._write(INFO, message, args, fields)

    def warn_with(self, message: Any, *args: Any, **fields: Any) -> None:
        if self.level <= WARNING:
            self._write(WARNING, message, args, fields)

    def error_with(self, message: Any, *args: Any, **fields: Any) -> None:
        if self.level <= ERROR:
            self._write(ERROR, message, args, fields)

    def _write(self, level: int, message: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        text = formatted(message, args)
        fields.update(self._bound)
        for output in list(self.outputs.values()):
            try:
                output(level, text, fields)
            except Exception as error:  # a file that the user gave
                print(f"log record lost: {_text_of(error)}", file=sys.stderr)
