"""Kills workers and processors at random points and counts what became of the events.

    python -m tests.fault.kill_rounds KILLS [SEED]     KILLS of workers, then KILLS of processors; counts as JSON

A program of its own, small and without threads: each end of a channel is a fork of it, so a kill costs milliseconds.
Events are numbered; a handler's first instruction counts its event in memory that all share, and that outlives them.
Exit code 1 with what went wrong: an event begun twice, lost, answered wrongly; a hang; a segment left behind.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shmem import _channel
from shmem.segment import FOLDER, PREFIX, Segment, sweep

RING = 4096
EVENTS = 1 << 24  # numbers; the page has a byte for each
NO_TEXTS = ("",) * 11
DEPTH = 8
LONGEST_ROUND_S = 0.004
LONGEST_START_S = 0.012  # of a processor with its worker, and a little of its life
HANG_S = 20.0
PR_SET_CHILD_SUBREAPER = 36


class Wrong(Exception):
    """A promise that was not kept."""


def body_of(number: int, chance: random.Random) -> bytes:
    """The number and a pattern; now and then too large for the ring."""
    size = chance.choice([0, 0, 8, 100, 700, 3000])
    return number.to_bytes(8, "little") + bytes([number % 251]) * size


def serve(name: str, event_fd: int, reply_fd: int, begun: mmap.mmap, chance: random.Random) -> None:
    """The worker: echoes, logs now and then, looks at some bodies in place and at some not at all before it counts."""
    channel = _channel.WorkerChannel(name, event_fd, reply_fd)
    while True:
        record = channel.take()
        if record is None:
            channel.wait()
            continue
        body = channel.body()
        number = int.from_bytes(body[:8], "little")
        begun[number] += 1
        busy_until = time.monotonic() + chance.choice([0, 0, 0, 0.0001, 0.001])
        while time.monotonic() < busy_until:
            pass
        if chance.random() < 0.1:
            channel.log(record[2], 1, 0, f"event {number}", "")
        channel.reply(record[2], 200, "", None, body)
        channel.release()


class End:
    """A processor's end of one channel, with its worker: what lane.py does, without asyncio."""

    def __init__(self, begun: mmap.mmap, chance: random.Random, *, with_parent: bool) -> None:
        self.begun = begun
        self.chance = chance
        self.segment = Segment(_channel.HEADER_BYTES + 2 * RING)
        event_read, self.event_write = os.pipe()
        self.reply_read, reply_write = os.pipe()
        os.set_blocking(self.event_write, False)
        os.set_blocking(self.reply_read, False)
        self.channel = _channel.ProcessorChannel(
            self.segment.buffer, self.segment.name, RING, RING, self.event_write, self.reply_read, 1
        )
        parent = os.getpid()
        self.worker = os.fork()
        if self.worker == 0:
            with _exit_after():
                os.close(self.event_write)
                os.close(self.reply_read)
                if with_parent:
                    _channel.die_with_parent(parent)
                serve(self.segment.name, event_read, reply_write, begun, chance)
        os.close(event_read)
        os.close(reply_write)
        self.pending: dict[int, tuple[int, int, bytes]] = {}  # by id: number, token, body
        self.next_id = 1
        self.counts: Counter[str] = Counter()

    def give(self, queue: deque[int]) -> None:
        """Put events while the worker has few and the ring has room."""
        while queue and len(self.pending) < DEPTH:
            body = body_of(queue[0], self.chance)
            token = self.channel.put_event(self.next_id, 0, 0, 0, -1, 0, NO_TEXTS, (), b"", body)
            if not token:
                return
            self.pending[self.next_id] = (queue.popleft(), token, body)
            self.next_id += 1

    def drain(self) -> int:
        """Take what is there; returns how many records."""
        records = self.channel.drain()
        for kind, id, status, _, _, _, body in records:
            if kind == _channel.REPLY:
                number, _, sent = self.pending.pop(id)
                self.counts["answered"] += 1
                if status != 200 or body != sent or self.begun[number] != 1:
                    raise Wrong(f"event {number} was answered wrongly, or begun {self.begun[number]} times")
        return len(records)

    def pump(self, queue: deque[int], until: float) -> None:
        """Give and take until that monotonic time, asleep when there is nothing to do."""
        while (left := until - time.monotonic()) > 0:
            if self.chance.random() < 0.9:
                self.give(queue)
            if not self.drain() and self.channel.sleep():
                ready, _, _ = select.select([self.reply_read], [], [], left)
                if ready and not self.channel.awake():
                    return  # the worker is gone

    def settle(self, queue: deque[int]) -> None:
        """The worker is dead: its last words count, begun events have failed, the others are dealt again first."""
        while self.drain():
            pass
        again = []
        for number, token, _ in self.pending.values():
            if self.channel.begun(token):
                self.counts["died"] += 1
                self.counts["taken, killed before the first instruction"] += self.begun[number] == 0
            elif self.begun[number]:
                raise Wrong(f"event {number} was begun, and would be dealt again")
            else:
                again.append(number)
        self.counts["dealt again"] += len(again)
        queue.extendleft(reversed(again))

    def close(self) -> None:
        """Free everything; raises Wrong when something stays."""
        self.channel.close()
        self.segment.close()
        os.close(self.event_write)
        os.close(self.reply_read)
        if left := list(FOLDER.glob(f"{self.segment.name}*")):
            raise Wrong(f"segments left behind: {left}")


@contextmanager
def _exit_after() -> Iterator[None]:
    """A forked child never returns into its parent's code; the end of the other side is a good end."""
    code = 1
    try:
        yield
        code = 0
    except _channel.RingClosed:
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _hang(*_: Any) -> None:
    raise Wrong(f"hangs for {HANG_S} s")


def moment(chance: random.Random) -> float:
    """Seconds until the kill: early ones as likely as late ones, over three powers of ten."""
    return float(LONGEST_ROUND_S * 10 ** (-3 * chance.random()))


def kill_workers(kills: int, begun: mmap.mmap, chance: random.Random) -> Counter[str]:
    """One stream of events through `kills` workers, each killed; then through one that is not."""
    counts: Counter[str] = Counter()
    queue: deque[int] = deque()
    last = 0
    for round in range(kills + 1):
        fresh = chance.choice([0, 1, 5, 60]) if len(queue) < 100 else 0
        queue.extend(range(last, last := last + fresh))
        end = End(begun, chance, with_parent=chance.random() < 0.5)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        end.pump(queue, time.monotonic() + moment(chance))
        while round == kills and (queue or end.pending):
            end.pump(queue, time.monotonic() + 0.01)
        os.kill(end.worker, signal.SIGKILL)
        _, status = os.waitpid(end.worker, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if status != signal.SIGKILL:
            raise Wrong(f"a worker ended by itself with {status}")
        end.settle(queue)
        end.close()
        counts += end.counts
    counts["events"] = last
    if counts["answered"] + counts["died"] != last:
        raise Wrong(f"{last} events, but {dict(counts)}")
    return counts


def kill_processors(kills: int, begun: mmap.mmap, chance: random.Random) -> Counter[str]:
    """A processor with a worker of its own each time, killed; the worker must leave, sweeping must find all."""
    counts: Counter[str] = Counter()
    first = EVENTS // 2
    for round in range(kills):
        numbers = range(first + round * 100, first + round * 100 + 100)
        with_parent = chance.random() < 0.5
        processor = os.fork()
        if processor == 0:
            with _exit_after():
                chance.seed(round)
                End(begun, chance, with_parent=with_parent).pump(deque(numbers), time.monotonic() + HANG_S)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        time.sleep(chance.random() * LONGEST_START_S)
        os.kill(processor, signal.SIGKILL)
        _reap_all(processor, counts)
        signal.setitimer(signal.ITIMER_REAL, 0)
        swept = [name for name in sweep() if name.startswith(f"{PREFIX}{processor}-")]
        counts["segments swept"] += len(swept)
        if left := list(FOLDER.glob(f"{PREFIX}{processor}-*")):
            raise Wrong(f"segments left behind: {left}")
        if twice := [number for number in numbers if begun[number] > 1]:
            raise Wrong(f"begun more than once: {twice}")
        counts["begun"] += sum(begun[number] for number in numbers)
    return counts


def _reap_all(processor: int, counts: Counter[str]) -> None:
    """Wait for the processor and for the worker that it left to us."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == processor:
                if status != signal.SIGKILL:
                    raise Wrong(f"a processor ended by itself with {status}")
            elif status not in (0, signal.SIGKILL):
                raise Wrong(f"a worker ended with {status} after its processor was killed")
            else:
                counts["workers left by themselves" if status == 0 else "workers killed with their processor"] += 1


def main(arguments: list[str]) -> int:
    """Both kinds of kill; prints the counts."""
    kills = int(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, _hang)
    begun = mmap.mmap(-1, EVENTS)
    started = time.monotonic()
    try:
        workers = kill_workers(kills, begun, chance)
        processors = kill_processors(kills, begun, chance)
    except Wrong as error:
        traceback.print_exception(error)
        print(f"seed {seed}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # what the channels still hold is of no interest any more
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"kills": 2 * kills, "seed": seed, "s": seconds, "worker": workers, "processor": processors}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
