"""Log records as the standard library's `logging` knows them: only for functions that set outputs of their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .json_encoder import Encoder

if TYPE_CHECKING:
    from .logger import Output


class JSONFormatter(logging.Formatter):
    """One JSON object a record, behind the letter that nuclio's processor tells log records by."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "datetime": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "with": getattr(record, "with", {}),
        }
        return "l" + Encoder().encode(fields)


class HumanReadableFormatter(logging.Formatter):
    """One line a record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "with", {})
        more = f": {fields}" if fields else ""
        when = self.formatTime(record, self.datefmt)
        return f"Python> {when} [{record.levelname.lower()}] {record.getMessage()}{more}"


def file_output(name: str, file: Any, formatter: logging.Formatter) -> Output:
    """An output that writes each record to `file` as one line, at once."""

    def write(level: int, message: str, fields: dict[str, Any]) -> None:
        record = logging.LogRecord(name, level, "", 0, message, (), None)
        setattr(record, "with", fields)  # a keyword, so not to be written as an attribute
        file.write(formatter.format(record) + "\n")
        file.flush()

    return write
