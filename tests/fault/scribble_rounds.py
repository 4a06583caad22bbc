"""The processor's end of a channel while another process writes into the segment as fast as it can.

    python -m tests.fault.scribble_rounds SECONDS [SEED]     counts as JSON

A program of its own, so that a crash is a crash of this one. The other process writes where it hurts: control words,
and the heads of the records that are being read at that moment, between any two instructions of the C code.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter

from shmem import _channel
from shmem.segment import Segment
from shmem.vectors import generate

RING = 4096
REPLIES = _channel.HEADER_BYTES + RING
TAILS_AND_HEADS = [128, 192, 256, 320, 384, 448, 72, 76]
NO_TEXTS = ("",) * 11
SLOWEST_S = 2.0


def scribble(segment: memoryview, seed: int) -> None:
    """Never returns."""
    chance = random.Random(seed)
    values = [0, 1, 2, 4, 7, 8, 16, 0x40, 0x7F, 0x80, 0xC3, 0xF0, 0xFF]
    plan = [(_place(chance), chance.choice(values)) for _ in range(1 << 16)]
    while True:
        for at, value in plan:
            before = segment[at]
            segment[at] = value
            if value & 1:
                segment[at] = before  # wrong only for a moment: seen by one read and not by the next


def _place(chance: random.Random) -> int:
    if chance.random() < 0.2:
        return chance.choice(TAILS_AND_HEADS) + chance.choice([0, 0, 1, 2, 3])
    if chance.random() < 0.6:
        return REPLIES + chance.randrange(256)
    return chance.randrange(64, REPLIES + RING)


def rounds(segment: Segment, bells: tuple[int, int], until: float, chance: random.Random) -> Counter[str]:
    """Fresh channel, replies published, then everything a processor does; until that monotonic time."""
    counts: Counter[str] = Counter()
    names = [name for name in generate.RECORDS if name.startswith(("reply", "log", "ready", "failed"))]
    images = [generate.encode(generate.RECORDS[name]) for name in names]
    buffer = segment.buffer
    while time.monotonic() < until:
        channel = _channel.ProcessorChannel(buffer, segment.name, RING, RING, *bells, 1)
        channel.limit(1 << 20)
        replies = b"".join(chance.choices(images, k=chance.randrange(1, 5)))
        buffer[REPLIES : REPLIES + len(replies)] = replies
        buffer[320:324] = len(replies).to_bytes(4, "little")
        for turn in range(4):
            begun = time.monotonic()
            try:
                counts["records"] += len(channel.drain())
                channel.sleep()
                token = channel.put_event(turn + 1, 0, 0, 0, -1, 0, NO_TEXTS, (), b"", b"x" * chance.randrange(1500))
                channel.begun(token)
                channel.put_control(_channel.DRAIN)
                channel.awake()
            except (_channel.RingBroken, _channel.NoSpace, ValueError) as error:
                counts[type(error).__name__] += 1
            counts["slow"] += time.monotonic() - begun > SLOWEST_S
        counts["channels"] += 1
        channel.close()
    return counts


def main(arguments: list[str]) -> int:
    """Exit code 1 when a call took too long; a crash shows as the signal it is."""
    seconds, seed = float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else os.getpid()
    segment = Segment(_channel.HEADER_BYTES + 2 * RING)
    to_worker, from_worker = os.pipe2(os.O_NONBLOCK), os.pipe2(os.O_NONBLOCK)
    other = os.fork()
    if other == 0:
        scribble(segment.buffer, seed)
    try:
        counts = rounds(segment, (to_worker[1], from_worker[0]), time.monotonic() + seconds, random.Random(seed))
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        segment.close()
    print(json.dumps({"seed": seed, "s": seconds} | counts))
    return 1 if counts["slow"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
