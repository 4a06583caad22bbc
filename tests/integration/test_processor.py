"""The processor with real workers: what becomes of events when handlers, workers and memory misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from agent.model.errors import FunctionError
from agent.model.event import Result
from shmem.segment import FOLDER
from tests.support.eventually import eventually
from tests.support.processor import running

ECHO = "def handler(context, event):\n    return event.body\n"


def own_segments() -> list[str]:
    return [path.name for path in FOLDER.glob(f"headrace-{os.getpid()}-*")]


async def test_events_are_answered_in_order_and_nothing_stays_behind(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as f:
        outcomes = await asyncio.gather(*(f.start(str(number).encode()) for number in range(1000)))
        assert [outcome.body for outcome in outcomes] == [str(number).encode() for number in range(1000)]
        pids = f.workers()
        statistics = f.processor.statistics()["triggers"]["t"]
        assert (statistics["handled"], statistics["failed"]) == (1000, 0)
        assert statistics["p50_us"] > 0
    assert own_segments() == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_bodies_of_every_size_come_back_whole(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as f:
        for size in (0, 1, 65_000, 66_000, 262_144, 5_000_000):
            body = os.urandom(size)
            assert (await f.call(body)).body == body


async def test_a_killed_worker_costs_only_the_event_in_hand(tmp_path: Path) -> None:
    code = """
        import os, signal
        def handler(context, event):
            if event.body == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            return event.body
    """
    async with running(tmp_path, code) as f:
        await asyncio.gather(*(f.start(b"warm") for _ in range(100)))  # the lane learns that the handler is quick
        first = f.workers()
        outcomes = [f.start(b"die" if number == 10 else b"%d" % number) for number in range(50)]
        results = [(await outcome).result for outcome in outcomes]
        assert [number for number, result in enumerate(results) if result is not Result.REPLIED] == [10]
        assert results[10] is Result.WORKER_DIED
        assert f.workers() != first
    assert own_segments() == []


async def test_a_worker_killed_from_outside_between_events_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as f:
        (pid,) = f.workers()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: f.workers() not in ([], [pid]))
        assert (await f.call(b"after")).body == b"after"


async def test_an_event_over_its_time_is_ended_alone(tmp_path: Path) -> None:
    code = """
        import time
        def handler(context, event):
            if event.body == b"hang":
                while True:
                    pass
            return event.body
    """
    async with running(tmp_path, code, spec={"eventTimeout": "300ms"}, numWorkers=2) as f:
        hung = f.start(b"hang")
        others = [f.start(b"%d" % number) for number in range(20)]
        assert all(outcome.ok for outcome in await asyncio.gather(*others))
        assert not hung.done()
        assert (await hung).result is Result.TIMED_OUT
        await eventually(lambda: len(f.workers()) == 2)


async def test_events_behind_a_hung_one_are_dealt_to_its_successor(tmp_path: Path) -> None:
    code = """
        import time
        def handler(context, event):
            if event.body == b"hang":
                time.sleep(60)
            return event.body
    """
    async with running(tmp_path, code, spec={"eventTimeout": "200ms"}) as f:
        hung, behind = f.start(b"hang"), f.start(b"behind")
        assert (await hung).result is Result.TIMED_OUT
        assert (await behind).body == b"behind"


async def test_no_free_worker_in_time_is_said_and_zero_means_at_once(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(1)\n"
    async with running(tmp_path, code, workerAvailabilityTimeoutMilliseconds=100) as f:
        busy, refused = f.start(), f.start()
        assert (await refused).result is Result.NO_WORKER
        assert not busy.done()
        assert (await busy).ok
    async with running(tmp_path, code, workerAvailabilityTimeoutMilliseconds=0) as f:
        busy, refused = f.start(), f.start()
        assert (await refused).result is Result.NO_WORKER
        await busy


async def test_the_queue_in_front_of_the_workers_is_bounded(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(0.3)\n"
    async with running(tmp_path, code, queueSize=3) as f:
        outcomes = [await outcome for outcome in [f.start() for _ in range(6)]]
        assert [outcome.result for outcome in outcomes].count(Result.NO_WORKER) == 2


async def test_a_failed_delivery_is_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    code = """
        seen = 0
        def handler(context, event):
            global seen
            seen += 1
            if seen < 3:
                raise RuntimeError("not yet")
            return str(seen)
    """
    async with running(tmp_path, code, delivery="at-least-once", retryDelay="10ms") as f:
        outcome = await f.call(deliver=True)
        assert (outcome.body, outcome.attempts) == (b"3", 3)
        assert f.processor.statistics()["triggers"]["t"]["retried"] == 2


async def test_attempts_have_an_end(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    raise RuntimeError('never')\n"
    async with running(tmp_path, code, delivery="at-least-once", retryDelay="5ms", maxAttempts=3) as f:
        outcome = await f.call(deliver=True)
        assert (outcome.ok, outcome.status, outcome.attempts) == (False, 500, 3)
        await f.sink.drained()


async def test_a_batch_is_one_call_with_a_list(tmp_path: Path) -> None:
    code = """
        def handler(context, events):
            size = len(events)
            return [context.Response(body=f"{size} {e.body.decode()}", event_id=e.id) for e in events]
    """
    batch = {"mode": "enable", "batchSize": 4, "timeout": "100ms"}
    async with running(tmp_path, code, kind="http", interval=None, batch=batch) as f:
        outcomes = [(await outcome).body for outcome in [f.start(b"%d" % number) for number in range(6)]]
        assert outcomes == [b"4 0", b"4 1", b"4 2", b"4 3", b"2 4", b"2 5"]


async def test_several_async_events_are_in_flight_in_one_worker(tmp_path: Path) -> None:
    code = """
        import asyncio
        here, all_here = 0, asyncio.Event()
        async def handler(context, event):
            global here
            here += 1
            if here == 50:
                all_here.set()
            await all_here.wait()  # nobody answers before all have begun
            return "done"
    """
    async with running(tmp_path, code, mode="async") as f:
        assert all(outcome.ok for outcome in await asyncio.gather(*(f.start() for _ in range(50))))


async def test_log_records_of_one_event_come_back_with_it(tmp_path: Path) -> None:
    code = """
        def handler(context, event):
            context.logger.debug("hidden")
            context.logger.warn_with("seen", weight=event.body.decode())
    """
    async with running(tmp_path, code) as f:
        first, second = await asyncio.gather(f.start(b"1", log_level="info"), f.start(b"2", log_level="debug"))
        assert [(record["level"], record["message"], record.get("weight")) for record in first.logs or []] == [
            ("warn", "seen", "1")
        ]
        assert [record["message"] for record in second.logs or []] == ["hidden", "seen"]
    records = [json.loads(line) for line in (tmp_path / "function.log").read_text().splitlines()]
    assert [record["message"] for record in records].count("seen") == 2


async def test_what_a_function_prints_is_in_its_log(tmp_path: Path) -> None:
    code = "import os\ndef handler(context, event):\n    print('printed')\n    os.write(2, b'to stderr')\n"
    async with running(tmp_path, code) as f:
        await f.call()
    text = (tmp_path / "function.log").read_text()
    assert "printed" in text
    assert "to stderr" in text


async def test_stopping_finishes_what_was_begun(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(0.5)\n    return 'finished'\n"
    async with running(tmp_path, code) as f:
        in_hand = f.start()
        await eventually(lambda: f.processor.statistics()["workers"][0]["busy"])
        waiting = f.start()
        f.processor.stop()
        assert (await in_hand).body == b"finished"
        assert (await waiting).result in (Result.STOPPED, Result.REPLIED)


async def test_a_delivery_waiting_for_its_next_attempt_is_handed_back_at_the_end(tmp_path: Path) -> None:
    code = "def handler(context, event):\n    raise RuntimeError('x')\n"
    async with running(tmp_path, code, delivery="at-least-once", retryDelay="1h", maxRetryDelay="1h") as f:
        outcome = f.start(deliver=True)
        await eventually(lambda: f.processor.statistics()["triggers"]["t"]["retried"])
        f.processor.stop()
        assert (await outcome).result is Result.STOPPED


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def init_context(context):\n    raise ValueError('no database')\ndef handler(c, e): ...\n", "no database"),
        ("import nothing_like_that\n", "nothing_like_that"),
        ("other = 1\n", "handler"),
        ("import os\nos._exit(3)\n", "exit code 3"),
        ("def handler(:\n", "main.py"),
    ],
)
async def test_a_function_that_cannot_start_says_why(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(FunctionError, match=reason):
        async with running(tmp_path, code):
            pass
    assert own_segments() == []


async def test_a_function_that_is_not_ready_in_time_is_refused(tmp_path: Path) -> None:
    code = "import time\ndef init_context(context):\n    time.sleep(60)\ndef handler(c, e): ...\n"
    with pytest.raises(FunctionError, match="Function wasn't ready in time"):
        async with running(tmp_path, code, spec={"readinessTimeoutSeconds": 1}):
            pass
    assert own_segments() == []


async def test_a_worker_that_scribbles_over_its_channel_is_replaced(tmp_path: Path) -> None:
    code = """
        import os, struct
        def handler(context, event):
            if event.body == b"scribble":
                with open("/dev/shm/" + os.environ["HEADRACE_SEGMENT"], "r+b") as segment:
                    segment.seek(320)
                    segment.write(struct.pack("<I", 0xFFFFFF00))
                    segment.seek(4096 + 262144)
                    segment.write(b"\\xff" * 4096)
            return event.body
    """
    async with running(tmp_path, code) as f:
        assert not (await f.call(b"scribble")).ok
        assert (await f.call(b"fine")).body == b"fine"


async def test_processes_a_worker_started_end_with_it(tmp_path: Path) -> None:
    code = """
        import subprocess
        def handler(context, event):
            return str(subprocess.Popen(["sleep", "1000"]).pid)
    """
    async with running(tmp_path, code) as f:
        child = int((await f.call()).body)
        os.kill(child, 0)
    await eventually(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
