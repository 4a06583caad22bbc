"""What a processor counts, per trigger: outcomes, named counters, and a latency histogram.

Flow: sink -> [statistics] -> link -> agent -> metrics, live table. Kept cheap: two list stores an event.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

_SUB_BITS = 4
_LARGEST = 63 << _SUB_BITS
_LAST_BYTES = 80


class Histogram:
    """Latencies in nanoseconds, in log-linear buckets of 16 a power of two: at most 6 % off, 8 KB, never grows."""

    def __init__(self) -> None:
        self.counts = [0] * (_LARGEST + 16)
        self.total = 0
        self.sum_ns = 0

    def record(self, ns: int) -> None:
        """Count one latency of `ns` nanoseconds (0 or more)."""
        if ns < 16:
            self.counts[ns] += 1
        else:
            shift = ns.bit_length() - _SUB_BITS - 1
            self.counts[((shift + 1) << _SUB_BITS) + ((ns >> shift) & 15)] += 1
        self.total += 1
        self.sum_ns += ns

    def quantile_us(self, share: float) -> float:
        """Microseconds below which `share` (0..1) of the latencies lie; 0 when there are none."""
        left = share * self.total
        for index, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return round(_middle_ns(index) / 1000, 1)
        return 0.0


def _middle_ns(index: int) -> float:
    if index < 16:
        return float(index)
    shift, rest = (index >> _SUB_BITS) - 1, index & 15
    return ((16 + rest) << shift) + (1 << shift) / 2


class TriggerStatistics:
    """Counts of one trigger. Plain values that only the event loop touches."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.handled = 0  # the handler has done its work
        self.failed = 0  # every attempt failed
        self.retried = 0  # attempts after the first
        self.by_result: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        self.latency = Histogram()
        self.up = False
        self.address = ""
        self.why = "not started"
        self._last = b""

    @property
    def last(self) -> bytes:
        """The beginning of the last reply: a large one must not stay in memory, nor travel, for a glance at it."""
        return self._last

    @last.setter
    def last(self, body: bytes) -> None:
        self._last = body[:_LAST_BYTES]

    def as_dict(self) -> dict[str, Any]:
        """The shape that travels on the link and is shown by the agent at /statistics."""
        return {
            "kind": self.kind,
            "address": self.address,
            "up": self.up,
            "why": self.why,
            "handled": self.handled,
            "failed": self.failed,
            "retried": self.retried,
            "results": dict(self.by_result),
            "counters": dict(self.counters),
            "p50_us": self.latency.quantile_us(0.5),
            "p99_us": self.latency.quantile_us(0.99),
            "seconds_sum": self.latency.sum_ns / 1e9,
            "last": self._last.decode(errors="replace"),
        }
