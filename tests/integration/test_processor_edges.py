"""The processor at the edges of what it is given: batches that cannot be whole, shared workers, forks that fail."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Event, Outcome, Result
from agent.processor.sink import TriggerSink
from tests.support.eventually import eventually
from tests.support.processor import RunningProcessor, running

ECHO = "def handler(context, event):\n    return event.body\n"
SLOW = "import time\ndef handler(context, event):\n    time.sleep(float(event.body))\n    return 'done'\n"


def hand(sink: TriggerSink, body: bytes, deliver: bool = False, **values: Any) -> asyncio.Future[Outcome]:
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    (sink.deliver if deliver else sink.dispatch)(Event(body=body, **values), outcome.set_result)
    return outcome


def sinks(f: RunningProcessor) -> tuple[TriggerSink, TriggerSink]:
    first, second = f.processor.sinks.values()
    return first, second


def two_on_shared_workers(**second: Any) -> dict[str, Any]:
    """Two triggers that never fire, one pool."""
    shared = {"kind": "cron", "interval": "1000h", "workerAllocatorName": "both"}
    return {"triggers": {"t": shared, "u": shared | second}}


@pytest.mark.parametrize("field", ["timestamp_ns", "offset", "shard_id", "num_shards"])
async def test_a_number_no_record_can_hold_is_refused_alone(tmp_path: Path, field: str) -> None:
    async with running(tmp_path, ECHO) as f:
        assert (await f.call(**{field: 2**80})).result is Result.TOO_LARGE
        assert (await f.call(b"next")).body == b"next"
        await f.sink.drained()


async def test_an_event_that_is_refused_is_told_after_dispatch_has_returned(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as f:
        outcome = f.start(path="/" + "x" * 200_000)
        assert not outcome.done()
        assert (await outcome).result is Result.TOO_LARGE


async def test_a_batch_whose_last_event_cannot_be_put_is_handled_without_it(tmp_path: Path) -> None:
    code = """
        def handler(context, events):
            return [context.Response(body=str(len(events)), event_id=event.id) for event in events]
    """
    batch = {"mode": "enable", "batchSize": 3, "timeout": "100ms"}
    async with running(tmp_path, code, kind="http", interval=None, batch=batch) as f:
        outcomes = [f.start(b"a"), f.start(b"b"), f.start(path="/" + "x" * 200_000)]
        assert [(await outcome).result for outcome in outcomes] == [Result.REPLIED, Result.REPLIED, Result.TOO_LARGE]
        assert (await outcomes[0]).body == b"2"
        more = [f.start(b"c"), f.start(b"d"), f.start(b"e")]
        assert [(await outcome).body for outcome in more] == [b"3", b"3", b"3"]


async def test_a_batch_larger_than_the_ring_is_one_call(tmp_path: Path) -> None:
    code = """
        def handler(context, events):
            total = sum(len(event.body) for event in events)
            return [context.Response(body=str(total), event_id=event.id) for event in events]
    """
    batch = {"mode": "enable", "batchSize": 20, "timeout": "100ms"}
    async with running(tmp_path, code, kind="http", interval=None, batch=batch) as f:
        outcomes = [f.start(b"x" * 50_000) for _ in range(20)]
        assert {(await outcome).body for outcome in outcomes} == {b"1000000"}


async def test_a_backlog_of_deliveries_does_not_keep_a_caller_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, SLOW, spec=two_on_shared_workers()) as f:
        backlog, caller = sinks(f)
        waiting = [hand(backlog, b"0.05", deliver=True) for _ in range(100)]
        assert (await hand(caller, b"0")).ok
        assert sum(outcome.done() for outcome in waiting) < 50
        await asyncio.gather(*waiting)


async def test_a_caller_who_may_wait_less_is_refused_first(tmp_path: Path) -> None:
    short = two_on_shared_workers(workerAvailabilityTimeoutMilliseconds=50)
    async with running(tmp_path, SLOW, spec=short) as f:
        patient, hasty = sinks(f)
        busy, behind = hand(patient, b"1"), hand(patient, b"0")
        assert (await hand(hasty, b"0")).result is Result.NO_WORKER
        assert not busy.done()
        assert (await behind).ok


async def test_what_a_dead_worker_had_not_begun_still_expires(tmp_path: Path) -> None:
    code = """
        import os, time
        def init_context(context):
            if os.path.exists("died"):
                time.sleep(5)
        def handler(context, event):
            if event.body == b"die":
                open("died", "w").close()
                time.sleep(0.2)
                os._exit(1)
            return "done"
    """
    async with running(tmp_path, code, workerAvailabilityTimeoutMilliseconds=600) as f:
        await asyncio.gather(*(f.start() for _ in range(200)))  # the lane learns that two fit into its ring
        dying, behind = f.start(b"die"), f.start()
        assert (await dying).result is Result.WORKER_DIED
        assert (await behind).result is Result.NO_WORKER


async def test_a_worker_that_follows_has_no_more_time_to_get_ready_than_the_first(tmp_path: Path) -> None:
    code = """
        import os, time
        def init_context(context):
            if not os.path.exists("once"):
                open("once", "w").close()
            elif not os.path.exists("twice"):
                open("twice", "w").close()
                time.sleep(1000)
        def handler(context, event):
            return "done"
    """
    async with running(tmp_path, code, spec={"readinessTimeoutSeconds": 1}) as f:
        (first,) = f.workers()
        os.kill(first, signal.SIGKILL)
        await eventually(f.workers, within_s=20)
        assert (await f.call()).body == b"done"


async def test_starting_workers_in_vain_leaks_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, ECHO) as f:
        await f.call()
        lane = f.processor._pools[0].lanes[0]
        launch = lane.pool.launch_of(0)
        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(lane.pool, "launch_of", lambda index: _nowhere(launch))
        os.kill(f.workers()[0], signal.SIGKILL)
        await eventually(lambda: f.processor._pools[0].restarts >= 3)
        assert len(os.listdir("/proc/self/fd")) <= before
        monkeypatch.undo()
        await eventually(f.workers)


def _nowhere(launch: Any) -> Any:
    import dataclasses

    return dataclasses.replace(launch, argv=("/nonexistent/python",))


async def test_who_waits_for_a_hanging_handler_is_answered_at_the_end(tmp_path: Path) -> None:
    """The trigger's task waits for its answer; it gets one before it is cancelled for good."""
    code = "import time\ndef handler(context, event):\n    time.sleep(1000)\n"
    async with running(tmp_path, code, kind="http", interval=None, workerTerminationTimeout="500ms") as f:
        address = await eventually(lambda: f.sink.statistics.address)
        host, _, port = address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: f.processor.statistics()["workers"][0]["busy"])
        f.processor.stop()
        assert b" 502 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(1000)\n"
    async with running(tmp_path, code, workerTerminationTimeout="1000s") as f:
        hanging = f.start()
        await eventually(lambda: f.processor.statistics()["workers"][0]["busy"])
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(f.processor._stop.is_set)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await hanging).result is Result.WORKER_DIED


async def test_a_function_that_prints_too_much_says_how_much_was_left_out(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    for number in range(20000):\n        print(number)\n"
    async with running(tmp_path, code) as f:
        await f.call()
    text = "".join(path.read_text() for path in tmp_path.glob("function.log*"))
    assert "suppressed" in text.splitlines()[-1]
