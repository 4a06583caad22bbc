"""Says in the log which files and lines were given up, and where they are now.

Why: a counter that went up does not tell the operator which file to look at. Flow: end of an event -> [here] -> log.
Promise: one warning a file; of lines the first at once, then how many more there were, at most every `LINES_EVERY_S`.
"""

from __future__ import annotations

import asyncio

from agent.model.event import Outcome, Result
from agent.model.sink import Sink
from agent.triggers.file.spec import FileSpec

LINES_EVERY_S = 60.0


class Failures:
    """Those of one trigger. `close` it."""

    def __init__(self, spec: FileSpec, sink: Sink) -> None:
        self._log = sink.log
        self._kept = bool(spec.dead_letters) and spec.promise != "at-most-once"
        self._more, self._path = 0, ""
        self._timer: asyncio.TimerHandle | None = None

    def file(self, path: str, outcome: Outcome, moved_to: str) -> None:
        """The last attempt at a file has failed. `moved_to` is empty where it was left."""
        where = moved_to or "left where it is; taken again when it changes"
        self._log.warning("a file was given up", path=path, **_how(outcome), now=where, dead_letter=self._kept)

    def line(self, path: str, offset: int, outcome: Outcome) -> None:
        """The last attempt at a line has failed; the next one follows."""
        if self._timer:
            self._more, self._path = self._more + 1, path
            return
        self._log.warning("a line was given up", path=path, offset=offset, **_how(outcome), dead_letter=self._kept)
        self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LINES_EVERY_S, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if self._more:
            self._tell_more()
            self._wait()

    def _tell_more(self) -> None:
        self._log.warning("more lines were given up", lines=self._more, last_path=self._path)
        self._more = 0

    def close(self) -> None:
        """Tell what was not told yet."""
        if self._timer:
            self._timer.cancel()
        if self._more:
            self._tell_more()


def _how(outcome: Outcome) -> dict[str, str | int]:
    answer = f"status {outcome.status}" if outcome.result is Result.REPLIED else outcome.result.value
    return {"attempts": outcome.attempts, "because": answer}
