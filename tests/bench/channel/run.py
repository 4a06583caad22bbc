"""The whole measurement: every peer at every size, round after round, so that what disturbs the machine hits all.

Flow: __main__ -> [run] -> pair.Pair or floor.FloorPair -> rows for report.py.
Promise: a peer that can not do something is a row that says why.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.bench.channel import placement, registry, syscalls
from tests.bench.channel.floor import FloorPair
from tests.bench.channel.pair import Pair, Took
from tests.bench.channel.peer import Unfit
from tests.bench.channel.registry import Entry

PACED_SIZE = 128  # CPU at a fixed rate and system calls are measured at this size
PER_SECOND = 1000
PAUSE_S = 0.001


@dataclass(frozen=True)
class Lengths:
    """How long each stretch runs."""

    one_way_s: float = 0.4
    busy_s: float = 0.3
    idle_count: int = 350
    paced_count: int = 1000
    traced_count: int = 2000
    rounds: int = 3


QUICK = Lengths(0.05, 0.05, 30, 50, 100, 1)


class Processes(Protocol):
    """What a Pair and a FloorPair have in common."""

    near_pid: int
    far_pid: int
    note: str

    def one_way(self, count: int) -> Took: ...
    def round_trips(self, count: int, pause_s: float) -> Took: ...
    def paced(self, count: int, per_second: float) -> Took: ...
    def close(self) -> None: ...


@dataclass
class Samples:
    """What all rounds found for one peer at one size."""

    entry: Entry
    size: int
    note: str = ""
    per_second: list[float] = field(default_factory=list)
    trips: dict[str, list[Took]] = field(default_factory=lambda: defaultdict(list))
    paced: list[Took] = field(default_factory=list)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # by what could not be measured


def measure(entries: Iterable[Entry], sizes: Iterable[int], lengths: Lengths) -> list[dict[str, Any]]:
    """Rows, one a peer and size, in the order of the registry."""
    table = [Samples(entry, size) for size in sizes for entry in entries if size in entry.sizes]
    for number in range(lengths.rounds):
        for samples in table:
            _say(f"round {number + 1} of {lengths.rounds}: {samples.entry.name}, {samples.size} bytes")
            _with_pair(samples, "a round", _stretches, lengths)
    for samples in table:
        if samples.size == PACED_SIZE and "start" not in samples.reasons:
            _say(f"system calls: {samples.entry.name}")
            _with_pair(samples, "system calls", _traced, lengths)
    _say("")
    return [_row(samples) for samples in table]


def _with_pair(
    samples: Samples, what: str, work: Callable[[Samples, Processes, Lengths], None], lengths: Lengths
) -> None:
    if "start" in samples.reasons or what in samples.reasons:
        return  # nor will it in this round: a peer that hangs costs a quarter of a minute each time
    try:
        pair = start(samples.entry, samples.size)
    except Unfit as error:
        samples.reasons["start"] = str(error)
        return
    with contextlib.closing(pair):
        samples.note = pair.note
        try:
            work(samples, pair, lengths)
        except Unfit as error:
            samples.reasons[what] = str(error)


def start(entry: Entry, size: int) -> Processes:
    """Both processes of a peer. Raises Unfit."""
    if ":" in entry.at:
        return Pair(registry.load(entry), size)
    return FloorPair(size, memcpy=entry.at == "memcpy")


def _stretches(samples: Samples, pair: Processes, lengths: Lengths) -> None:
    count = calibrated(pair.one_way, lengths.one_way_s)
    took = pair.one_way(count)
    samples.per_second.append(took.count / took.seconds)
    if samples.entry.two_way:
        _trips(samples, pair, lengths)
    if samples.size == PACED_SIZE and samples.entry.at != "memcpy":
        samples.paced.append(pair.paced(lengths.paced_count, PER_SECOND))


def _trips(samples: Samples, pair: Processes, lengths: Lengths) -> None:
    def busy(name: str) -> None:
        count = calibrated(lambda count: pair.round_trips(count, 0), lengths.busy_s)
        samples.trips[name].append(pair.round_trips(count, 0))

    busy("busy")
    samples.trips["idle"].append(pair.round_trips(lengths.idle_count, PAUSE_S))
    if samples.size == PACED_SIZE:
        with placement.on_one_core(pair.near_pid, pair.far_pid):
            busy("busy_one_core")
        with placement.on_two_cores(pair.near_pid, pair.far_pid):
            busy("busy_two_cores")


def calibrated(work: Callable[[int], Took], seconds: float) -> int:
    """How many messages take about `seconds`; finding out is the warm-up."""
    count = 10
    while (took := work(count)).seconds < seconds / 8:
        count *= max(2, min(20, int(seconds / 8 / took.seconds)))
    return max(10, int(count * seconds / took.seconds))


def _traced(samples: Samples, pair: Processes, lengths: Lengths) -> None:
    if not samples.entry.two_way:
        return
    many, few = lengths.traced_count, max(20, lengths.traced_count // 8)
    pids = pair.near_pid, pair.far_pid
    pair.one_way(10)
    samples.calls["one_way"] = syscalls.per_message(*pids, lambda: pair.one_way(many), many)
    samples.calls["busy"] = syscalls.per_message(*pids, lambda: pair.round_trips(many, 0), many)
    # its pause before each message is the benchmark's own call
    samples.calls["idle"] = syscalls.per_message(*pids, lambda: pair.round_trips(few, PAUSE_S), few, few)


def _row(samples: Samples) -> dict[str, Any]:
    row: dict[str, Any] = {"peer": samples.entry.name, "size": samples.size, "note": samples.note}
    if samples.per_second:
        middle = statistics.median(samples.per_second)
        row["one_way"] = {
            "per_s": round(middle),
            "mb_per_s": round(middle * samples.size / 1e6, 1),
            "rounds": [round(value) for value in samples.per_second],
        }
    for name, stretches in samples.trips.items():
        row[name] = _percentiles(stretches)
    if samples.paced:
        row["paced"] = _paced(samples.paced)
    if samples.calls:
        row["calls"] = samples.calls
    if samples.reasons:
        row["why_not"] = samples.reasons
    return row


def _percentiles(stretches: list[Took]) -> dict[str, float]:
    """Microseconds: p50 and p99 are medians of the rounds, p99.9 is over all of them (a round may have too few)."""
    sorted_rounds = [sorted(took.latencies_ns) for took in stretches]
    pooled = array("Q")
    for took in stretches:
        pooled.extend(took.latencies_ns)
    count = len(pooled)
    return {
        "p50_us": round(statistics.median(one[len(one) // 2] for one in sorted_rounds) / 1e3, 1),
        "p99_us": round(statistics.median(one[len(one) * 99 // 100] for one in sorted_rounds) / 1e3, 1),
        "p99_9_us": round(sorted(pooled)[count * 999 // 1000] / 1e3, 1),
        "count": count,
        "switches": round(sum(took.switches for took in stretches) / count, 2),
    }


def _paced(stretches: list[Took]) -> dict[str, float]:
    return {
        "near_cpu_us": round(statistics.median(took.near_cpu_s / took.count for took in stretches) * 1e6, 1),
        "far_cpu_us": round(statistics.median(took.far_cpu_s / took.count for took in stretches) * 1e6, 1),
        "switches": round(statistics.median(took.switches / took.count for took in stretches), 2),
    }


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
