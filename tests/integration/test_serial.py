"""The serial trigger on real ptys: vanish and return, garbage, floods, locks, replies; under asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agent.model.event import Outcome, Result
from agent.model.registry import trigger_kind
from agent.model.spec import Duration
from agent.triggers.serial.framing.spec import Framing
from agent.triggers.serial.port import Port
from agent.triggers.serial.spec import SerialSpec
from tests.support.eventually import eventually, turns
from tests.support.nobody import as_nobody
from tests.support.pty_pair import SOCAT, BarePty, SocatPair
from tests.support.recording_sink import RecordingSink

REBUILDS = 100

needs_socat = pytest.mark.skipif(
    SOCAT is None and "CI" not in os.environ, reason="socat is not installed (apt install socat)"
)


def serial_spec(device: Path, **keys: Any) -> SerialSpec:
    return SerialSpec(kind="serial", name="t", device=str(device), **keys)


@contextlib.asynccontextmanager
async def running(spec: SerialSpec, sink: RecordingSink) -> AsyncIterator[asyncio.Task[None]]:
    """The trigger, found by its kind as the processor finds it, until the block ends."""
    task = asyncio.ensure_future(trigger_kind("serial").run(spec, sink))  # type: ignore[arg-type]
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def bodies(sink: RecordingSink) -> list[bytes]:
    return [bytes(event.body) for event in sink.events]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def sink(tmp_path: Path) -> RecordingSink:
    state = tmp_path / "state"
    state.mkdir()
    return RecordingSink(state)


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    return folder


async def vanish_and_return(devices: Path, sink: RecordingSink, rebuilds: int) -> list[float]:
    """Seconds from the pair's reappearance to the open port, for each of `rebuilds` tear-downs under load."""
    pair, recoveries, sent = SocatPair(devices), [], []
    async with running(serial_spec(devices / "near"), sink):
        await eventually(lambda: sink.state.startswith("down"))
        for number in range(rebuilds):
            pair.build()
            built = time.monotonic()
            await eventually(lambda: sink.state == "up", every_s=0.001)
            recoveries.append(time.monotonic() - built)
            for part in range(5):
                sent.append(b"%d.%d" % (number, part))
                pair.write(sent[-1] + b"\n")
            await eventually(lambda: len(sink.events) == len(sent), every_s=0.001)
            pair.write(b"cut off by the te")
            pair.tear_down()
            await eventually(lambda: sink.state.startswith("down"), every_s=0.001)
    assert bodies(sink) == sent
    return recoveries


@needs_socat
@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_torn_down_and_rebuilt(
    devices: Path, sink: RecordingSink, run: Callable[[Coroutine[Any, Any, list[float]]], list[float]]
) -> None:
    """Every frame written while the port was up arrives once, in order, and no descriptor stays behind."""
    run(turns())  # a loop's first use may keep descriptors for the whole process
    before = descriptors()
    rebuilds = REBUILDS if run is asyncio.run else REBUILDS // 4
    recoveries = sorted(run(vanish_and_return(devices, sink, rebuilds)))
    median, worst = (f"{recoveries[at] * 1e3:.1f} ms" for at in (rebuilds // 2, -1))
    print(f"{rebuilds} recoveries: median {median}, worst {worst}")
    assert descriptors() == before


@needs_socat
async def test_comes_back_under_another_name(devices: Path, sink: RecordingSink) -> None:
    pair = SocatPair(devices)
    async with running(serial_spec(devices / "ttyUSB*"), sink):
        for name in ("ttyUSB0", "ttyUSB1", "ttyUSB10"):
            pair.build(near=name)
            await eventually(lambda: sink.state == "up")
            pair.write(name.encode() + b"\n")
            await eventually(lambda name=name: bodies(sink)[-1:] == [name.encode()])
            event = sink.events[-1]
            assert (event.path, event.url) == (str(devices / "ttyUSB*"), str((devices / name).resolve()))
            pair.tear_down()
            await eventually(lambda: sink.state.startswith("down"))


async def test_the_folder_of_the_name_may_be_missing_too(devices: Path, sink: RecordingSink) -> None:
    """As /dev/serial/by-id is while no adapter is plugged in."""
    folder = devices / "serial" / "by-id"
    async with running(serial_spec(folder / "usb-meter"), sink):
        await eventually(lambda: "no such device" in sink.state)
        folder.mkdir(parents=True)
        with BarePty(folder / "usb-meter") as line:
            await eventually(lambda: sink.state == "up")
            line.write(b"7\n")
            await eventually(lambda: bodies(sink) == [b"7"])


async def test_what_a_device_says_before_the_port_is_set_up_is_kept(devices: Path, sink: RecordingSink) -> None:
    with BarePty(devices / "t") as line:
        line.write(b"hello\n")
        async with running(serial_spec(devices / "t"), sink):
            await eventually(lambda: bodies(sink) == [b"hello"])


async def test_half_frames_garbage_and_silence(devices: Path, sink: RecordingSink) -> None:
    """What is incomplete is dropped after the time-out, what is damaged is counted, what is whole comes through."""
    spec = serial_spec(devices / "t", checksum="xor", frame_timeout=Duration(0.05), max_frame=64, content_type="text/x")
    with BarePty(devices / "t") as line:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            line.write(b"$half")
            await eventually(lambda: sink.counters["frames_partial"] == 1)
            damaged = b"$A*41\r\n\xff\xfe\x00garbage\r\n" + b"x" * 100 + b"\n$B*42\r\n"
            line.write(damaged)
            await eventually(lambda: len(sink.events) == 2)
            assert bodies(sink) == [b"$A", b"$B"]
            assert sink.counters["frames"] == 2
            assert sink.counters["frames_bad"] == sink.counters["frames_too_long"] == 1
            assert sink.counters["bytes"] == len(b"$half" + damaged)
            event = sink.events[0]
            assert event.content_type == "text/x"
            assert abs(event.timestamp_ns - time.time_ns()) < 60e9


async def test_idle_gap(devices: Path, sink: RecordingSink) -> None:
    framing = Framing(type="idleGap", gap=Duration(0.05))
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t", framing=framing), sink):
            await eventually(lambda: sink.state == "up")
            for frame in (b"\x01\x03\x00", b"\x01\x04\x00\n\r"):
                line.write(frame)
                await eventually(lambda frame=frame: bodies(sink)[-1:] == [frame])


async def flood(line: BarePty, total: int) -> int:
    """Writes numbered 16-byte lines as fast as they are taken; their count. Ends early when nobody takes any more."""
    sent = b"".join(b"%015d\n" % number for number in range(total // 16))
    at, refused_since = 0, time.monotonic()
    while at < len(sent) and time.monotonic() - refused_since < 5:
        taken = line.write(sent[at : at + 4096])
        at += taken
        refused_since = time.monotonic() if taken else refused_since
        await turns()
    return at // 16


class SlowSink(RecordingSink):
    """Answers a bounded number of events each turn of the loop, so that the queue in front of it fills."""

    def __init__(self, state_dir: Path, capacity: int) -> None:
        super().__init__(state_dir)
        self.capacity, self.hold = capacity, True

    async def work(self) -> None:
        while True:
            await turns()
            self.finish_held()


@pytest.mark.parametrize("on_full", ["block", "drop"])
async def test_flood_with_a_slow_function(devices: Path, tmp_path: Path, on_full: Any) -> None:
    """A megabyte into a queue of 512: `block` loses nothing on a pty, `drop` counts exactly what it dropped."""
    sink = SlowSink(tmp_path, capacity=512)
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t", on_full=on_full), sink):
            working = asyncio.ensure_future(sink.work())
            await eventually(lambda: sink.state == "up")
            written = await flood(line, 1 << 20)
            assert written == 65536
            await eventually(lambda: len(sink.events) + sink.counters["dropped"] == written, within_s=20)
            working.cancel()
            sink.finish_held()
    arrived = [int(body) for body in bodies(sink)]
    assert arrived == sorted(set(arrived))
    assert sink.counters["frames"] == written
    if on_full == "block":
        assert arrived == list(range(written))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_blocked_line_costs_nothing_and_its_loss_is_seen(
    devices: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], None]
) -> None:
    """With the queue full and bytes waiting nothing turns; a hang-up is noticed; what had come is delivered later."""
    wakes = []
    on_events = Port._on_events
    monkeypatch.setattr(Port, "_on_events", lambda self: (wakes.append(1), on_events(self)))

    async def scenario() -> None:
        sink.hold, sink.capacity = True, 1
        line = BarePty(devices / "t").build()
        async with running(serial_spec(devices / "t", on_full="block"), sink):
            await eventually(lambda: sink.state == "up")
            line.write(b"1\n2\n3\n")
            await eventually(lambda: len(sink.events) == 1)
            line.write(b"more\n")
            before = len(wakes)
            await turns(50)
            assert len(wakes) - before <= 2
            line.tear_down()
            await eventually(lambda: sink.state.startswith("down"))
            sink.hold = False
            sink.finish_held()
            await eventually(lambda: bodies(sink) == [b"1", b"2", b"3"])

    run(scenario())


async def test_the_second_owner_of_a_port_is_told_and_gets_it_when_it_is_free(
    devices: Path, sink: RecordingSink, tmp_path: Path
) -> None:
    second = RecordingSink(tmp_path)
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t"), second):
            async with running(serial_spec(devices / "t"), sink):
                await eventually(lambda: {"up"} < {sink.state, second.state})
                waiting = second if sink.state == "up" else sink
                await eventually(lambda: "locked by another program" in waiting.state)
                assert f"process {os.getpid()}" in waiting.state
            await eventually(lambda: second.state == "up")
            line.write(b"mine\n")
            await eventually(lambda: bodies(second) == [b"mine"])


async def test_permission_denied_names_the_group(devices: Path, sink: RecordingSink) -> None:
    with BarePty(devices / "t"):
        os.chmod(devices / "t", 0)
        trigger_kind("serial")  # imported while we still may
        with contextlib.ExitStack() as nobody:
            nobody.enter_context(as_nobody(devices))
            async with running(serial_spec(devices / "t"), sink):
                await eventually(lambda: "usermod -aG" in sink.state)
                nobody.close()
                os.chmod(devices / "t", 0o600)
                await eventually(lambda: sink.state == "up")


@pytest.mark.parametrize("name", ["file", "folder"])
async def test_what_is_no_serial_port_is_told(devices: Path, sink: RecordingSink, name: str) -> None:
    (devices / "file").touch()
    (devices / "folder").mkdir()
    before = descriptors()
    async with running(serial_spec(devices / name), sink):
        await eventually(lambda: "is it a serial port" in sink.state)
    assert descriptors() == before


async def read_all(line: BarePty, length: int) -> bytes:
    got = bytearray()

    def enough() -> bool:
        got.extend(line.read())
        return len(got) >= length

    await eventually(enough)
    return bytes(got)


async def test_replies_come_in_the_order_of_requests(devices: Path, sink: RecordingSink) -> None:
    """However the workers finish: failed and empty ones leave no trace, later ones wait for earlier ones."""
    sink.hold = True
    sink.answer = lambda event: (
        Outcome(Result.REPLIED, 500)
        if event.body == b"2"
        else Outcome(Result.REPLIED, 200, body=b"=" + bytes(event.body))
    )
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t", framing="slip", reply=True), sink):
            await eventually(lambda: sink.state == "up")
            line.write(b"".join(b"%d\xc0" % number for number in range(5)))
            await eventually(lambda: len(sink.held) == 5)
            sink.held.reverse()
            sink.finish_held()
            expected = b"".join(b"\xc0=%d\xc0" % number for number in (0, 1, 3, 4))
            assert await read_all(line, len(expected)) == expected
    assert sink.counters["replies"] == 4


async def test_a_reply_waits_for_the_turnaround_and_has_its_own_delimiter(devices: Path, sink: RecordingSink) -> None:
    spec = serial_spec(devices / "t", reply=True, reply_delimiter=r"\r", reply_delay=Duration(0.1))
    with BarePty(devices / "t") as line:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            asked = time.monotonic()
            line.write(b"hello\n")
            assert await read_all(line, 6) == b"hello\r"
            assert time.monotonic() - asked >= 0.1


async def test_stopping_still_answers_what_is_in_flight(devices: Path, sink: RecordingSink) -> None:
    """And takes nothing new: the source is released once the answers are written."""
    sink.hold = True
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t", reply=True), sink) as task:
            await eventually(lambda: sink.state == "up")
            line.write(b"last\n")
            await eventually(lambda: len(sink.held) == 1)
            task.cancel()
            line.write(b"too late\n")
            await turns()
            assert not sink.released
            sink.finish_held()
            assert await read_all(line, 5) == b"last\n"
            await eventually(task.done)
        assert sink.released
        assert bodies(sink) == [b"last"]
        second = os.open(line.link, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(second)


async def test_stopping_without_replies_frees_the_port_before_the_work_is_done(
    devices: Path, sink: RecordingSink
) -> None:
    sink.hold = True
    with BarePty(devices / "t") as line:
        async with running(serial_spec(devices / "t"), sink) as task:
            await eventually(lambda: sink.state == "up")
            line.write(b"a\n")
            await eventually(lambda: len(sink.held) == 1)
            task.cancel()
            await eventually(lambda: sink.released)
            assert not task.done()
            sink.finish_held()


async def test_a_peer_that_takes_no_answer_costs_the_answer_only(devices: Path, sink: RecordingSink) -> None:
    sink.answer = lambda event: Outcome(Result.REPLIED, 200, body=b"x" * 100_000)
    spec = serial_spec(devices / "t", reply=True, write_timeout=Duration(0.05))
    with BarePty(devices / "t") as line:
        async with running(spec, sink):
            await eventually(lambda: sink.state == "up")
            line.write(b"1\n2\n")
            await eventually(lambda: sink.counters["replies_lost"] == 2)
            line.write(b"3\n")
            await eventually(lambda: len(sink.events) == 3)


async def test_answers_owed_to_a_lost_port_are_counted(devices: Path, sink: RecordingSink) -> None:
    sink.hold = True
    line = BarePty(devices / "t").build()
    async with running(serial_spec(devices / "t", reply=True), sink):
        await eventually(lambda: sink.state == "up")
        line.write(b"1\n2\n")
        await eventually(lambda: len(sink.held) == 2)
        line.tear_down()
        await eventually(lambda: sink.counters["replies_lost"] == 2)
        sink.finish_held()
        with line.build():
            await eventually(lambda: sink.state == "up")
            line.write(b"3\n")
            await eventually(lambda: len(sink.held) == 1)
            sink.finish_held()
            assert await read_all(line, 2) == b"3\n"
