"""The live table of the demo: redrawn in place on a terminal, a line now and then anywhere else.

Promise: what is drawn fits the terminal, so that it never scrolls away copies of itself: columns and lines for which
there is no room are left out, and a terminal whose size has changed is cleared, since it may have moved what it shows.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Mapping
from typing import TextIO

from agent.demo.observe import Row

COLUMNS = (("source", 7), ("function", 11), ("events", 8), ("errors", 7), ("p50", 9), ("p99", 9))
LINE_EVERY_S = 3.0
SIZE_UNKNOWN = (80, 24)
"""Columns and lines, where the terminal does not say, or says 0 as serial consoles do."""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CLEAR = "\x1b[H\x1b[2J"


class Table:
    """Draws rows on `out`. `with` leaves the terminal as it was."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._drawn = 0
        self._size = (0, 0)
        self._next_line = 0.0

    def __enter__(self) -> Table:
        if self._live:
            self._write(HIDE_CURSOR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._write(SHOW_CURSOR)

    def say(self, line: str) -> None:
        """A line above the table; before it is drawn."""
        self._write(line + "\n")

    def draw(self, rows: Mapping[str, Row], note: str = "") -> None:
        """The present state; `note` is the line below the table."""
        if self._live:
            before, self._size = self._size, self._size_now()
            columns, height = self._size
            # One column and one line less than there are: a full line may wrap, and the cursor stands below the last.
            lines = [cut(line, columns - 1) for line in _chosen([*lines_of(rows), "", note], max(1, height - 1))]
            up = f"\x1b[{self._drawn}F" if self._drawn else ""
            start = CLEAR if self._drawn and before != self._size else up
            self._write(start + "".join(f"\x1b[2K{line}\n" for line in lines))
            self._drawn = len(lines)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self._write(summary(rows) + "\n")

    def _size_now(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._out.fileno())
        except OSError:
            return SIZE_UNKNOWN
        return columns or SIZE_UNKNOWN[0], lines or SIZE_UNKNOWN[1]

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _chosen(lines: list[str], room: int) -> list[str]:
    """As many as there is room for: without the blank line first, then without the note, then without the last rows."""
    if room >= len(lines):
        return lines
    *rows, _blank, note = lines
    return [*rows, note] if room > len(rows) else rows[:room]


def cut(line: str, columns: int) -> str:
    """As much of it as fits, where some characters take two columns, and some none."""
    used = 0
    for place, char in enumerate(line):
        wide = unicodedata.east_asian_width(char) in "WF"
        used += 0 if unicodedata.combining(char) else 1 + wide
        if used > columns:
            return line[:place]
    return line


def lines_of(rows: Mapping[str, Row]) -> list[str]:
    """A head and a line for each row."""
    head = "".join(name.ljust(width) if width > 9 or name == "source" else name.rjust(width) for name, width in COLUMNS)
    return [f"{head}  last result", *map(_line, rows.values())]


def _line(row: Row) -> str:
    cells = (str(row.handled), str(row.errors), duration_text(row.p50_us), duration_text(row.p99_us))
    numbers = "".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS[2:], strict=True))
    last = row.last if row.up else f"({row.why})"
    return f"{row.source:<7}{row.function:<11}{numbers}  {printable(last)}"


def farewell(rows: Mapping[str, Row], missing: int) -> str:
    """What it came to, in one sentence. `missing`: events that were sent and not finished."""
    handled, errors = sum(row.handled for row in rows.values()), sum(row.errors for row in rows.values())
    lost_text = f"{missing} lost" if missing else "none lost"
    return f"{handled} events handled, {errors} failed, {lost_text}"


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
