"""Workers that hang, stop answering, close what they need, or have served their time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agent.model.event import Result
from agent.processor import health, watch
from tests.support.eventually import eventually
from tests.support.processor import RunningProcessor, running

HANGS = {
    "busy loop": "while True: pass",
    "sleep": "time.sleep(60)",
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
    "in a C call": "ctypes.CDLL(None).pause()",
    "in a C call with the lock": "ctypes.PyDLL(None).pause()",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}


def hanging(how: str) -> str:
    return f"""
        import ctypes, os, signal, time
        def handler(context, event):
            if event.body == b"hang":
                {how}
            return event.body
    """


@pytest.mark.parametrize("how", HANGS)
async def test_an_event_is_over_at_its_time_however_its_handler_hangs(tmp_path: Path, how: str) -> None:
    async with running(tmp_path, hanging(HANGS[how]), spec={"eventTimeout": "300ms"}, numWorkers=2) as f:
        await f.call(b"warm")
        begun = time.monotonic()
        hung = f.start(b"hang")
        slowest = 0.0
        while not hung.done():
            asked = time.monotonic()
            assert (await f.call(b"x")).body == b"x"
            slowest = max(slowest, time.monotonic() - asked)
        assert (await hung).result is Result.TIMED_OUT
        assert 0.29 < time.monotonic() - begun < 0.5
        assert slowest < 0.25  # what it is on a loaded machine, and not what it would be behind the hung one
        await eventually(lambda: len(f.workers()) == 2)


async def test_an_event_that_was_over_its_time_is_tried_again_where_that_is_promised(tmp_path: Path) -> None:
    code = f"""
        import pathlib, time
        seen = pathlib.Path({str(tmp_path / "seen")!r})
        def handler(context, event):
            if not seen.exists():
                seen.touch()
                time.sleep(60)
            return "at last"
    """
    keys = {"delivery": "at-least-once", "retryDelay": "10ms"}
    async with running(tmp_path, code, spec={"eventTimeout": "200ms"}, **keys) as f:
        outcome = await f.call(deliver=True)
        assert (outcome.body, outcome.attempts) == (b"at last", 2)


async def test_a_hung_handler_may_clean_up_before_it_is_killed(tmp_path: Path) -> None:
    code = f"""
        import pathlib, signal, time
        def clean_up(number, frame):
            pathlib.Path({str(tmp_path / "clean")!r}).touch()
            raise SystemExit
        def handler(context, event):
            signal.signal(signal.SIGTERM, clean_up)
            time.sleep(60)
    """
    async with running(tmp_path, code, spec={"eventTimeout": "100ms"}) as f:
        assert (await f.call()).result is Result.TIMED_OUT
        await eventually((tmp_path / "clean").exists)


async def test_events_behind_a_hung_one_run_once_though_it_comes_back(tmp_path: Path) -> None:
    """It wakes up after its time: what waited in its ring must not be begun there and then once more elsewhere."""
    code = f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def handler(context, event):
            if event.body == b"hang":
                time.sleep(0.11)
            fd = os.open({str(tmp_path / "seen")!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, event.body + b"\\n")
            os.close(fd)
            return event.body
    """
    async with running(tmp_path, code, spec={"eventTimeout": "100ms"}) as f:
        await asyncio.gather(*(f.start(b"warm") for _ in range(200)))
        for _ in range(5):
            begun = [f.start(b"hang"), *(f.start(b"%d" % number) for number in range(20))]
            outcomes = await asyncio.gather(*begun)
            results = [outcome.result for outcome in outcomes]
            assert results[0] is Result.TIMED_OUT
            seen = (tmp_path / "seen").read_text().split()
            (tmp_path / "seen").unlink()
            for number, result in enumerate(results[1:]):
                assert (seen.count(str(number)), result) == (1, Result.REPLIED)


async def test_the_others_of_an_async_worker_are_finished_when_one_is_late(tmp_path: Path) -> None:
    code = """
        import asyncio
        async def handler(context, event):
            await asyncio.sleep(float(event.body))
            return event.body
    """
    async with running(tmp_path, code, spec={"eventTimeout": "400ms"}, mode="async") as f:
        (first,) = f.workers()
        late = f.start(b"60")
        await asyncio.sleep(0.2)  # so that the other is in the middle of its time when the late one is over
        other = f.start(b"0.35")
        assert (await late).result is Result.TIMED_OUT
        new = f.start(b"0.01")
        assert (await other).body == b"0.35"
        assert (await new).body == b"0.01"
        await eventually(lambda: f.workers() not in ([], [first]) and not alive(first))


async def test_an_idle_worker_that_does_not_answer_is_replaced(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch, "WEDGED_NS", 300_000_000)
    async with running(tmp_path, hanging("pass")) as f:
        (first,) = f.workers()
        await f.call(b"warm")
        os.kill(first, signal.SIGSTOP)
        assert (await f.call(b"x")).body == b"x"  # by its successor: it was never begun
        assert first not in f.workers()


async def test_a_worker_in_a_long_handler_is_left_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch, "WEDGED_NS", 100_000_000)
    code = "import time\ndef handler(context, event):\n    time.sleep(0.6)\n    return 'done'\n"
    async with running(tmp_path, code) as f:
        first = f.workers()
        assert (await f.call()).body == b"done"
        assert f.workers() == first


@pytest.mark.parametrize(
    "closing",
    [
        "os.closerange(0, 256)",
        "[os.close(n) for n in range(256) if os.path.exists(f'/proc/self/fd/{n}') and n != 0 and is_pipe(n)]",
    ],
)
async def test_a_worker_that_closes_its_descriptors_is_replaced_and_costs_no_time(tmp_path: Path, closing: str) -> None:
    code = f"""
        import os, stat, time
        def is_pipe(n):
            return stat.S_ISFIFO(os.fstat(n).st_mode)
        def handler(context, event):
            if event.body == b"close":
                try:
                    {closing}
                except OSError:
                    pass
                time.sleep(60)
            return event.body
    """
    async with running(tmp_path, code) as f:
        spent = time.process_time()
        begun = time.monotonic()
        assert (await f.call(b"close")).result is Result.WORKER_DIED
        assert time.process_time() - spent < 0.8 * (time.monotonic() - begun) + 0.1  # a closed pipe rings for ever
        assert (await f.call(b"x")).body == b"x"


# ------------------------------------------------------------------------------------------------ recycling

PID = "import os\ndef handler(context, event):\n    return str(os.getpid())\n"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def recycled(f: RunningProcessor) -> int:
    return int(f.processor.statistics()["workers_recycled"])


async def test_a_worker_is_recycled_after_its_number_of_events_and_none_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path, PID, spec={"recycle": {"events": 100}}) as f:
        pids: list[bytes] = []
        while len(set(pids)) < 4:
            pids += [(await outcome).body for outcome in [f.start() for _ in range(50)]]
        assert b"" not in pids
        assert min(pids.count(pid) for pid in list(dict.fromkeys(pids))[:3]) >= 100
        assert recycled(f) >= len(set(pids)) - 1
        statistics = f.processor.statistics()
        assert (statistics["worker_restarts"], statistics["triggers"]["t"]["failed"]) == (0, 0)
        await eventually(lambda: sum(alive(int(pid)) for pid in set(pids)) <= 2)


async def test_there_is_no_gap_while_a_worker_is_recycled(tmp_path: Path) -> None:
    code = """
        import os, time
        def init_context(context):
            time.sleep(0.3)
        def handler(context, event):
            return str(os.getpid())
    """
    async with running(tmp_path, code, spec={"recycle": {"events": 20}}) as f:
        slowest, pids = 0.0, set()
        while len(pids) < 3:
            begun = time.monotonic()
            pids.add((await f.call()).body)
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 0.25


async def test_what_a_recycled_worker_has_in_hand_is_finished(tmp_path: Path) -> None:
    code = "import time\ndef handler(context, event):\n    time.sleep(1)\n    return 'finished'\n"
    async with running(tmp_path, code, spec={"recycle": {"age": "200ms"}}) as f:
        first = f.workers()
        outcome = f.start()
        await eventually(lambda: recycled(f) and f.workers() not in ([], first))
        assert not outcome.done()
        assert (await outcome).body == b"finished"
        await eventually(lambda: not alive(first[0]))


async def test_a_worker_that_grows_is_recycled(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch, "_MEMORY_LOOK_S", 0.05)
    code = """
        import os
        kept = []
        def handler(context, event):
            kept.append(bytearray(os.urandom(1 << 20) * 40))
            return str(os.getpid())
    """
    async with running(tmp_path, code, spec={"recycle": {"memory": "64Mi"}}) as f:
        first = (await f.call()).body
        await f.call()
        await eventually(lambda: recycled(f) == 1 and f.workers() not in ([], [int(first)]))
        assert (await f.call()).body != first


async def test_an_old_worker_stays_while_no_successor_can_start(tmp_path: Path) -> None:
    code = f"""
        import os
        if os.path.exists({str(tmp_path / "broken")!r}):
            raise RuntimeError("broken meanwhile")
        def handler(context, event):
            return str(os.getpid())
    """
    async with running(tmp_path, code, spec={"recycle": {"events": 5}}) as f:
        (tmp_path / "broken").touch()
        pids = {(await f.call()).body for _ in range(20)}
        await eventually(lambda: recycled(f))
        pids |= {(await f.call()).body for _ in range(20)}
        assert len(pids) == 1
        assert "broken meanwhile" not in str(f.processor.statistics()["failing"])


async def test_stopping_in_the_middle_of_recycling_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import time\ndef init_context(context):\n    time.sleep(0.3)\ndef handler(context, event):\n    return 'x'\n"
    )
    async with running(tmp_path, code, spec={"recycle": {"events": 1}}) as f:
        await f.call()
        await eventually(lambda: recycled(f))
        pids = [item.pid for item in (*f.processor._pools[0].lanes, *f.processor._pools[0]._beside) if item.pid]
    assert pids and not any(alive(pid) for pid in pids)


# ---------------------------------------------------------------------------------------------- crash loops


async def test_when_workers_only_die_those_who_wait_are_told_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "_LONGEST_DELAY_S", 1.0)
    code = "import os\ndef handler(context, event):\n    os._exit(9)\n"
    async with running(tmp_path, code, workerAvailabilityTimeoutMilliseconds=60_000) as f:
        told: list[dict[str, Any]] = []
        f.processor._pools[0]._report = told.append
        results = []
        while not f.processor.statistics()["failing"]:
            results.append((await f.call()).result)
        assert set(results[:4]) == {Result.WORKER_DIED}
        assert "exit code 9" in told[0]["why"]
        begun = time.monotonic()
        assert (await f.call()).result is Result.NO_WORKER
        assert time.monotonic() - begun < 0.5


async def test_a_worker_that_dies_with_its_last_words_has_them_in_the_reason(tmp_path: Path) -> None:
    from agent.model.errors import FunctionError

    code = "import os, sys\nprint('no such sensor', file=sys.stderr)\nsys.stderr.flush()\nos._exit(4)\n"
    with pytest.raises(FunctionError, match="exit code 4: no such sensor"):
        async with running(tmp_path, code):
            pass
