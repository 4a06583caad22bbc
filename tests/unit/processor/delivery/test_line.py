"""The line: order per key, whatever fails and whoever is quick. A simulated pool with workers that take random time."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any, cast

import pytest

from agent.model.event import Event
from agent.processor.delivery.line import Line
from agent.processor.job import Job


class Lane:
    def __init__(self, depth: int) -> None:
        self.depth = depth


class World:
    """Workers that each take the jobs given to them in order; attempts fail at random."""

    def __init__(self, seed: int, lanes: int, depth: int, *, strict: bool, fails: float) -> None:
        self.random = random.Random(seed)
        self.lanes = [Lane(depth) for _ in range(lanes)]
        self.rings: list[list[Job]] = [[] for _ in range(lanes)]
        self.pooled: list[Job] = []
        self.retrying: list[Job] = []
        self.fails = fails
        self.runs: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        self.ended = 0
        self.most_out = 0
        self.line = Line(self.submit, self.lanes, lambda event: event.topic, strict=strict)

    def submit(self, job: Job) -> None:
        self.pooled.append(job)
        self.deal()

    def deal(self) -> None:
        while self.pooled:
            ring = min(self.rings, key=len)
            if len(ring) >= self.lanes[0].depth:
                return
            ring.append(self.pooled.pop(0))

    def step(self) -> None:
        """One thing happens: a worker ends an attempt, or a retry is due."""
        out = sum(map(len, self.rings)) + len(self.pooled)
        self.most_out = max(self.most_out, out)
        busy = [ring for ring in self.rings if ring]
        if self.retrying and (not busy or self.random.random() < 0.3):
            self.line.again(self.retrying.pop(self.random.randrange(len(self.retrying))))
            return
        if not busy:
            return
        ring = self.random.choice(busy)
        job = ring.pop(0)
        ok = self.random.random() >= self.fails
        self.runs[str(job.event.topic)].append((int(bytes(job.event.body)), ok))
        if ok:
            self.ended += 1
            self.line.left(job)
        elif not self.line.failed(job):
            self.retrying.append(job)
        self.deal()


def job(number: int, key: str) -> Job:
    return Job(Event(topic=key, body=b"%d" % number), lambda outcome: None, cast(Any, None), number, True)


async def run(world: World, count: int, keys: int) -> None:
    entered = 0
    steps = 0
    while world.ended < count:
        if entered < count and world.random.random() < 0.5:
            world.line.enter(job(entered, f"k{world.random.randrange(keys)}"))
            entered += 1
        else:
            world.step()
        steps += 1
        assert steps < 200 * count, "nothing moves any more"
    world.line.close()


def completed(runs: list[tuple[int, bool]]) -> list[int]:
    return [number for number, ok in runs if ok]


@pytest.mark.parametrize("seed", range(40))
async def test_strict_nothing_of_a_key_runs_before_the_one_ahead_has_succeeded(seed: int) -> None:
    world = World(seed, lanes=1 + seed % 4, depth=1 + seed % 5, strict=True, fails=0.3)
    await run(world, 300, keys=1 + seed % 7)
    for runs in world.runs.values():
        assert completed(runs) == sorted(completed(runs))
        assert [number for number, _ in runs] == sorted(number for number, _ in runs)  # failed attempts too


@pytest.mark.parametrize("seed", range(10))
async def test_relaxed_order_holds_while_nothing_fails(seed: int) -> None:
    world = World(seed, lanes=1, depth=1 + seed * 3, strict=False, fails=0.0)
    await run(world, 300, keys=3)
    for runs in world.runs.values():
        assert completed(runs) == sorted(completed(runs))


@pytest.mark.parametrize("seed", range(40))
async def test_relaxed_only_what_was_in_the_ring_runs_before_a_retry(seed: int) -> None:
    depth = 1 + seed % 6
    world = World(seed, lanes=1, depth=depth, strict=False, fails=0.2)
    await run(world, 300, keys=1 + seed % 3)
    for runs in world.runs.values():
        done = completed(runs)
        assert sorted(done) == sorted(set(done))
        early = sum(1 for place, number in enumerate(done) if any(later < number for later in done[place:]))
        assert early <= depth  # once, at the first failure; after it the line is strict


async def test_a_slow_key_does_not_hold_back_another() -> None:
    world = World(1, lanes=2, depth=1, strict=True, fails=0.0)
    for number in range(5):
        world.line.enter(job(number, "slow"))
    world.line.enter(job(5, "other"))
    assert [str(item.event.topic) for ring in world.rings for item in ring] == ["slow", "other"]


async def test_not_more_is_handed_over_than_the_rings_hold() -> None:
    world = World(1, lanes=2, depth=3, strict=False, fails=0.1)
    await run(world, 200, keys=50)
    assert world.most_out <= 6 + len(world.retrying) + 6


async def test_events_without_a_key_have_no_order() -> None:
    world = World(1, lanes=2, depth=1, strict=True, fails=0.0)
    for number in range(2):
        world.line.enter(job(number, ""))
    assert sum(map(len, world.rings)) == 2


async def test_emptying_gives_everything_that_waits_oldest_first() -> None:
    world = World(1, lanes=1, depth=1, strict=True, fails=0.0)
    for number in range(6):
        world.line.enter(job(number, "ab"[number % 2]))
    out = world.line.empty()
    assert [item.started_ns for item in out] == [1, 2, 3, 4, 5]
    world.step()
    assert world.rings == [[]]


async def test_after_a_change_of_the_worker_the_old_one_finishes_first() -> None:
    world = World(1, lanes=1, depth=2, strict=False, fails=0.0)
    world.line.enter(job(0, "k"))
    world.lanes[0] = Lane(2)
    world.line.enter(job(1, "k"))
    assert [len(ring) for ring in world.rings] == [1]
    world.step()
    assert [int(bytes(item.event.body)) for item in world.rings[0]] == [1]


async def test_the_timer_is_not_left_behind() -> None:
    world = World(1, lanes=1, depth=1, strict=False, fails=1.0)
    world.line.enter(job(0, "k"))
    world.step()
    world.line.close()
    await asyncio.sleep(0)
