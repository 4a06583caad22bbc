"""Drives floor.c: what the ring does without Python, and what the memory does without the ring."""

from __future__ import annotations

import select
import subprocess
from array import array

from tests.bench.channel.c_program import built
from tests.bench.channel.pair import Took
from tests.bench.channel.peer import Unfit

_RING = 1 << 18
_LARGE_RING = 8 << 20
_PATIENCE_S = 15.0


class FloorPair:
    """Looks like pair.Pair."""

    def __init__(self, size: int, *, memcpy: bool = False) -> None:
        ring = _RING if size < _RING // 8 else _LARGE_RING
        self.note = "" if memcpy else f"ring {ring >> 10} KiB"
        self.size = size
        self._memcpy = memcpy
        self._process = subprocess.Popen(
            [built("floor.c", "channel.c", "record.c"), str(ring), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.near_pid, self.far_pid = self._line()

    def one_way(self, count: int) -> Took:
        """As pair.Pair.one_way."""
        return self._ask("memcpy" if self._memcpy else "send", count, 0)

    def round_trips(self, count: int, pause_s: float) -> Took:
        """As pair.Pair.round_trips."""
        return self._ask("ping", count, int(pause_s * 1e9))

    def paced(self, count: int, per_second: float) -> Took:
        """As pair.Pair.paced."""
        return self._ask("pace", count, int(1e9 / per_second))

    def close(self) -> None:
        """End both processes."""
        self._process.kill()  # the child dies with it
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, what: str, count: int, number: int) -> Took:
        if self._memcpy and what != "memcpy":
            raise Unfit("one process: nothing goes anywhere")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {count} {number}\n")
        self._process.stdin.flush()
        _, began, ended, near_cpu, far_cpu, switches, *latencies = self._line()
        return Took(count, (ended - began) / 1e9, near_cpu / 1e9, far_cpu / 1e9, switches, array("Q", latencies))

    def _line(self) -> list[int]:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], _PATIENCE_S)[0]:
            raise Unfit(f"no answer within {_PATIENCE_S:.0f} s")
        words = output.readline().split()
        if not words:
            raise Unfit("the program ended without a word")
        return [int(word) for word in words]
