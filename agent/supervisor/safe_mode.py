"""Safe mode: what the agent does when it is the agent itself that keeps dying.

Why: whatever ends it again and again most likely comes from what it starts or reads. An agent that stays up without
functions can be asked what is wrong; one in a loop cannot, and wears out the card.
Flow: start -> [starts] -> too many in a short time: admin listener only, until SIGHUP or the next start.
Promise: a start is counted while it has not ended in order, and only in the same boot: power cuts are no loop. Times
are seconds since boot: a clock that jumps changes nothing. One small file is written at a start and removed at an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Recorded(msgspec.Struct, frozen=True):
    """Starts of this boot, oldest first, in seconds since it."""

    boot: str = ""
    starts: tuple[float, ...] = ()


def since_boot() -> float:
    """Seconds, suspended ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Starts:
    """In `file`, written with `write`. `most` starts within `within_s` seconds are a loop; 0: never."""

    def __init__(
        self,
        file: Path,
        most: int,
        within_s: float,
        write: Callable[[Path, bytes], None],
        now: Callable[[], float] = since_boot,
    ) -> None:
        self._file = file
        self._most = most
        self._within_s = within_s
        self._replace = write
        self._now = now

    def begin(self) -> str:
        """Count this start. Returns why it should be one in safe mode, empty where it should not."""
        boot, now = _boot(), self._now()
        before = self._read()
        recent = [at for at in before.starts if now - self._within_s <= at <= now] if before.boot == boot else []
        if self._most:
            self._write(Recorded(boot, tuple([*recent, now][-self._most - 1 :])))
        if not self._most or len(recent) < self._most:
            return ""
        return f"the agent was started {len(recent)} times within {self._within_s:g} s and did not end in order"

    def end(self) -> None:
        """It ends in order, or is told to go on: forget the starts."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("starts of the agent cannot be forgotten", file=str(self._file), reason=str(error))

    def _read(self) -> Recorded:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Recorded)
        except (OSError, msgspec.DecodeError):
            return Recorded()

    def _write(self, recorded: Recorded) -> None:
        try:
            self._replace(self._file, msgspec.json.encode(recorded))
        except OSError as error:  # a full disk is no reason not to start
            logger.warning("a start of the agent cannot be recorded", file=str(self._file), reason=str(error))


def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


class SafeMode:
    """What the admin listener reports on instead of a supervisor."""

    def __init__(self, why: str) -> None:
        self.stopping = False
        self.why = f"safe mode, no function is started: {why}; to leave it: SIGHUP, or stop and start the agent"

    async def statistics(self) -> dict[str, Any]:
        return {"functions": {}, "safe_mode": self.why}

    def unready(self) -> dict[str, str]:
        return {"agent": self.why}
