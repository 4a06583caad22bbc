"""The live table of the demo: redrawn in place on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TextIO

from agent.demo.observe import Row

COLUMNS = (("source", 7), ("function", 11), ("events", 8), ("errors", 7), ("p50", 9), ("p99", 9))
LINE_EVERY_S = 3.0
COLUMNS_UNKNOWN = 80
"""Where the terminal does not say how wide it is, or says 0 as serial consoles do."""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Table:
    """Draws rows on `out`. `with` leaves the terminal as it was."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._drawn = 0
        self._next_line = 0.0

    def __enter__(self) -> Table:
        if self._live:
            self._write(HIDE_CURSOR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._write(SHOW_CURSOR)

    def draw(self, rows: Mapping[str, Row], note: str = "") -> None:
        """The present state; `note` is the line below the table."""
        if self._live:
            width = self._width()
            lines = [line[:width] for line in [*lines_of(rows), "", note]]
            up = f"\x1b[{self._drawn}F" if self._drawn else ""
            self._write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
            self._drawn = len(lines)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self._write(summary(rows) + "\n")

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or COLUMNS_UNKNOWN
        except OSError:
            return COLUMNS_UNKNOWN

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def lines_of(rows: Mapping[str, Row]) -> list[str]:
    """A head and a line for each row."""
    head = "".join(name.ljust(width) if width > 9 or name == "source" else name.rjust(width) for name, width in COLUMNS)
    return [f"{head}  last result", *map(_line, rows.values())]


def _line(row: Row) -> str:
    cells = (str(row.handled), str(row.errors), duration_text(row.p50_us), duration_text(row.p99_us))
    numbers = "".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS[2:], strict=True))
    last = row.last if row.up else f"({row.why})"
    return f"{row.source:<7}{row.function:<11}{numbers}  {printable(last)}"


def summary(rows: Mapping[str, Row]) -> str:
    """All rows in one line."""
    return "  ".join(
        f"{row.source} {row.handled}" + (f" ({row.errors} errors)" * bool(row.errors)) for row in rows.values()
    )


def duration_text(us: float) -> str:
    """Microseconds for people."""
    if us <= 0:
        return "-"
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.1f} ms" if us < 1e6 else f"{us / 1e6:.1f} s"


def printable(text: str) -> str:
    """One line without control characters: what a handler answers must not move the cursor."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
