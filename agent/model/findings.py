"""What is wrong with a file somebody wrote, said in one form: file, line, column, key, what, how to mend it.

Flow: reading and checking a specification collects findings, so that all problems of a file are told at once; the
errors among them become one `InvalidSpec`, the others travel beside the loaded function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.model.errors import SpecError

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell the author of a file. Only an error keeps the file from being used."""

    level: Level
    what: str
    place: Place
    key: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.level}: {self.message}"

    @property
    def message(self) -> str:
        """The finding without its place and level."""
        text = f"{self.key}: {self.what}" if self.key else self.what
        return f"{text}; {self.fix}" if self.fix else text


class InvalidSpec(SpecError):
    """A file with one error or more. `findings` holds everything that was found, warnings too."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        errors = [item for item in self.findings if item.level == "error"]
        first = errors[0]
        if len(errors) == 1:
            where = f"{first.place}: {first.key}" if first.key else str(first.place)
            super().__init__(first.what, where=where, fix=first.fix)
        else:
            lines = "".join(f"\n  {item}" for item in errors)
            super().__init__(f"{len(errors)} errors{lines}", where=first.place.file)


@dataclass(slots=True)
class Findings:
    """Collects findings while one function is read."""

    items: list[Finding] = field(default_factory=list)

    def error(self, what: str, place: Place, key: str = "", fix: str = "") -> None:
        self.items.append(Finding("error", what, place, key, fix))

    def warning(self, what: str, place: Place, key: str = "", fix: str = "") -> None:
        self.items.append(Finding("warning", what, place, key, fix))

    def info(self, what: str, place: Place, key: str = "", fix: str = "") -> None:
        self.items.append(Finding("info", what, place, key, fix))

    def of(self, *levels: Level) -> list[Finding]:
        return [item for item in self.items if item.level in levels]

    def raise_errors(self) -> None:
        """Raises InvalidSpec with everything found when there is an error among it, in the order of the file."""
        if self.of("error"):
            raise InvalidSpec(sorted(self.items, key=lambda item: (item.place.line, item.place.column)))
