"""The file trigger on real files: each handled once, whatever way they come and whenever the trigger stops."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.event import Event, Outcome, Result
from agent.model.spec import Duration
from agent.triggers.file import inotify, reading
from agent.triggers.file.record_log import COMPACT_ABOVE
from agent.triggers.file.spec import FileSpec
from agent.triggers.file.trigger import run
from tests.support.eventually import eventually
from tests.support.recording_sink import RecordingSink

FAILED = Outcome(Result.REPLIED, 500)


def spec_of(inbox: Path, **keys: Any) -> FileSpec:
    return FileSpec(**{"kind": "file", "path": str(inbox), "rescan": Duration(3600), "settle": Duration(0.1), **keys})


@asynccontextmanager
async def running(spec: FileSpec, sink: RecordingSink, up: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    """The trigger, stopped in order at the end."""
    task = asyncio.create_task(run(spec, sink))
    try:
        if up:
            await eventually(lambda: sink.state == "up" or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def bodies(*sinks: RecordingSink) -> Counter[bytes]:
    return Counter(bytes(event.body) for sink in sinks for event in sink.events)


def once(n: int, prefix: str = "") -> Counter[bytes]:
    return Counter({f"{prefix}{i}".encode() * 3: 1 for i in range(n)})


def write_in_pieces(path: Path, text: str) -> None:
    with path.open("w") as file:
        for _ in range(3):
            file.write(text)
            file.flush()


async def stays_at(sink: RecordingSink, n: int) -> None:
    """Three settle times, enough for another event, which must not come."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.3
    await eventually(lambda: loop.time() > until)
    assert len(sink.events) == n


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Sentence, path and place of every warning."""
    lines: list[str] = []

    def note(message: Any) -> None:
        extra = message.record["extra"]
        lines.extend([message.record["message"], extra["path"], extra["now"]])

    number = logger.add(note, level="WARNING")
    yield lines
    logger.remove(number)


async def test_2000_files_once_each_across_restarts(inbox: Path, state: Path, tmp_path: Path) -> None:
    """Written in pieces, renamed in, moved in from another folder; the trigger is stopped and started meanwhile."""
    outside = tmp_path / "outside"
    outside.mkdir()

    def produce() -> None:
        for i in range(0, 2000, 4):
            write_in_pieces(inbox / f"pieces{i}", f"{i}")
            write_in_pieces(inbox / f".renamed{i + 1}", f"{i + 1}")
            os.rename(inbox / f".renamed{i + 1}", inbox / f"renamed{i + 1}")
            write_in_pieces(outside / f"moved{i + 2}", f"{i + 2}")
            os.rename(outside / f"moved{i + 2}", inbox / f"moved{i + 2}")
            write_in_pieces(outside / f"linked{i + 3}", f"{i + 3}")
            os.link(outside / f"linked{i + 3}", inbox / f"linked{i + 3}")

    sinks = []
    producer = threading.Thread(target=produce)
    producer.start()
    try:
        while producer.is_alive() or len(sinks) < 3:
            sink = RecordingSink(state)
            sinks.append(sink)
            async with running(spec_of(inbox), sink):
                await eventually(lambda sink=sink: len(sink.events) > 150 or not producer.is_alive())
        last = RecordingSink(state)
        sinks.append(last)
        async with running(spec_of(inbox), last):
            await eventually(lambda: sum(len(sink.events) for sink in sinks) >= 2000, 20)
    finally:
        producer.join()
    again = RecordingSink(state)
    async with running(spec_of(inbox), again):
        (inbox / "last").write_text("last")
        await eventually(lambda: again.events)
    assert [bytes(event.body) for event in again.events] == [b"last"]
    assert bodies(*sinks) == once(2000)


async def test_event_says_which_file_it_is(inbox: Path, state: Path) -> None:
    (inbox / "a.json").write_text("{}")
    os.utime(inbox / "a.json", ns=(0, 1_700_000_000_123_456_789))
    sink = RecordingSink(state)
    async with running(spec_of(inbox, content_type="application/json"), sink):
        event = (await eventually(lambda: sink.events))[0]
    assert (event.body, event.path, event.url) == (b"{}", "a.json", f"{inbox}/a.json")
    assert event.content_type == "application/json"
    assert dict(event.headers) == {
        "X-Headrace-File": "a.json",
        "X-Headrace-Size": "2",
        "X-Headrace-Mtime": "1700000000.123456789",
        "X-Headrace-Body": "content",
    }


async def test_body_path_and_files_too_large_for_content(inbox: Path, state: Path) -> None:
    (inbox / "large").write_bytes(b"x" * 11)
    sink = RecordingSink(state)
    async with running(spec_of(inbox, max_file_size=10), sink):
        event = (await eventually(lambda: sink.events))[0]
    assert event.body == os.fsencode(inbox / "large")
    assert ("X-Headrace-Body", "path") in event.headers


async def test_made_in_a_folder_that_was_just_made(inbox: Path, state: Path) -> None:
    """mkdir -p a/b; touch a/b/f: the watch on b comes too late for what is made in it."""
    sink = RecordingSink(state)
    async with running(spec_of(inbox, recursive=True), sink):
        for i in range(100):
            folder = inbox / f"a{i}" / "b"
            folder.mkdir(parents=True)
            (folder / "f").write_text(f"{i}" * 3)
        await eventually(lambda: len(sink.events) >= 100)
        moved = inbox / "a0"
        os.rename(moved, inbox / "renamed")
        (inbox / "renamed" / "b" / "later").write_text("later")
        await eventually(lambda: "renamed/b/later" in [event.path for event in sink.events])
    assert bodies(sink) == once(100) + Counter([b"later"])


async def test_folder_moved_in_with_files(inbox: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    for i in range(20):
        (tmp_path / "full" / f"{i}").write_text(f"{i}" * 3)
    sink = RecordingSink(state)
    async with running(spec_of(inbox, recursive=True), sink):
        os.rename(tmp_path / "full", inbox / "full")
        await eventually(lambda: len(sink.events) >= 20)
    assert bodies(sink) == once(20)


async def test_hard_link_and_rename_of_a_handled_file_are_not_new(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox), sink):
        (inbox / "a").write_text("a")
        await eventually(lambda: sink.counters["handled"] == 1)
        os.link(inbox / "a", inbox / "link")
        os.rename(inbox / "a", inbox / "b")
        (inbox / "last").write_text("last")
        await eventually(lambda: sink.counters["handled"] == 2)
        await stays_at(sink, 2)
    assert bodies(sink) == Counter([b"a", b"last"])


async def test_changed_file_is_new_and_changed_in_hand_is_one_more(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    sink.hold = True
    async with running(spec_of(inbox), sink):
        (inbox / "a").write_text("1")
        await eventually(lambda: sink.held)
        for text in ("22", "333", "4444"):
            (inbox / "a").write_text(text)
        await stays_at(sink, 1)
        sink.hold = False
        sink.finish_held()
        await eventually(lambda: len(sink.events) == 2)
        await eventually(lambda: sink.counters["handled"] == 2)
        (inbox / "a").write_text("55555")
        await eventually(lambda: len(sink.events) == 3)
    assert [bytes(event.body) for event in sink.events] == [b"1", b"4444", b"55555"]


async def test_slow_writer_is_waited_for(inbox: Path, state: Path, tmp_path: Path) -> None:
    """It pauses for longer than `settle`, more than once: the file is one event, whole, and moved whole."""
    sink = RecordingSink(state)
    async with running(spec_of(inbox, on_success="move", move_to=str(tmp_path / "done")), sink):
        with (inbox / "slow").open("w") as file:
            for piece in ("one ", "two ", "three"):
                file.write(piece)
                file.flush()
                await stays_at(sink, 0)
        await eventually(lambda: (tmp_path / "done" / "slow").exists())
    assert bodies(sink) == Counter([b"one two three"])
    assert (tmp_path / "done" / "slow").read_text() == "one two three"


async def test_one_of_two_writers_closes(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox, settle_max=Duration(0)), sink):  # 0: for ever
        with (inbox / "shared").open("w") as file:
            (inbox / "shared").write_text("one ")
            await stays_at(sink, 0)
            file.write("two")
        await eventually(lambda: sink.events)
        await stays_at(sink, 1)
    assert bodies(sink) == Counter([b"two "])
    assert sink.counters["unsettled"] == 0


async def test_what_was_being_written_at_the_start_is_waited_for(inbox: Path, state: Path) -> None:
    """Found by the walk, so nothing is known about its writer, who then closes it unseen or seen."""
    with (inbox / "a").open("w") as file:
        file.write("first ")
        file.flush()
        os.utime(inbox / "a", (0, 0))
        sink = RecordingSink(state)
        async with running(spec_of(inbox), sink):
            await stays_at(sink, 0)
            file.write("second")
            file.close()
            await eventually(lambda: sink.events)
    assert bodies(sink) == Counter([b"first second"])


async def test_closed_unseen_is_found_by_the_rescan(inbox: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify.Inotify, "watch", exhausted)
    sink = RecordingSink(state)
    with (inbox / "a").open("w") as file:
        file.write("all")
        async with running(spec_of(inbox, rescan=Duration(0.05)), sink):
            await stays_at(sink, 0)
            file.close()
            await eventually(lambda: sink.events)
    assert bodies(sink) == Counter([b"all"])


async def test_writer_that_never_closes(inbox: Path, state: Path) -> None:
    """Handed over after `settleMax`, not removed; what it writes after that is one more event, then it is removed."""
    sink = RecordingSink(state)
    spec = spec_of(inbox, settle=Duration(0.05), settle_max=Duration(0.2), on_success="delete", rescan=Duration(0.1))
    async with running(spec, sink):
        with (inbox / "open").open("w") as file:
            file.write("all")
            file.flush()
            await eventually(lambda: sink.counters["kept_open"])
            file.write(" and more")
            file.flush()
            await eventually(lambda: sink.counters["handled"] == 2)
            assert (inbox / "open").exists()
        await eventually(lambda: not os.listdir(inbox))
    assert bodies(sink) == Counter([b"all", b"all and more"])
    assert sink.counters["unsettled"] == 2


async def test_where_the_kernel_does_not_say_settle_decides(
    inbox: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file, and no CAP_LEASE."""

    def refuse(_: int) -> None:
        return None

    monkeypatch.setattr(reading, "is_being_written", refuse)
    sink = RecordingSink(state)
    async with running(spec_of(inbox), sink):
        with (inbox / "open").open("w") as file:
            file.write("all")
            file.flush()
            await eventually(lambda: sink.events)
            file.write(" and more")
            file.flush()
            await eventually(lambda: len(sink.events) == 2)
    assert bodies(sink) == Counter([b"all", b"all and more"])


async def test_writer_that_never_stops(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox, settle=Duration(0.5), settle_max=Duration(1.0)), sink):
        with (inbox / "open").open("w") as file:

            def write() -> bool:
                file.write("x")
                file.flush()
                return bool(sink.events)

            await eventually(write)
    assert sink.counters["unsettled"] == 1


async def test_ignored_names_and_renaming_to_a_wanted_one(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox, patterns=("*.csv",)), sink):
        for name in (".a.csv", "a.csv~", "a.tmp", "a.txt", "a.csv.part"):
            (inbox / name).write_text(name)
        os.rename(inbox / "a.csv.part", inbox / "a.csv")
        await eventually(lambda: sink.events)
    assert [event.path for event in sink.events] == ["a.csv"]


async def test_symbolic_links_and_pipes_are_not_read(inbox: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", inbox / "before")
    os.mkfifo(inbox / "pipe")
    sink = RecordingSink(state)
    async with running(spec_of(inbox, recursive=True), sink):
        os.symlink(tmp_path / "secret", inbox / "link")
        os.symlink(tmp_path, inbox / "folder")
        os.mkfifo(inbox / "pipe2")
        (inbox / "file").write_text("file")
        await eventually(lambda: sink.counters["irregular"] >= 2)
    assert bodies(sink) == Counter([b"file"])


@pytest.mark.parametrize("moving", [True, False])
async def test_success_and_failure_take_the_file_away(
    inbox: Path, state: Path, tmp_path: Path, moving: bool, warnings: list[str]
) -> None:
    done, errors = tmp_path / "done", tmp_path / "errors"
    done.mkdir()
    (done / "good.txt").write_text("was there before")
    taken = {"on_success": "move", "move_to": str(done)} if moving else {"on_success": "delete"}
    spec = spec_of(inbox, on_failure="move", error_to=str(errors), **taken)
    sink = RecordingSink(state, lambda event: FAILED if event.path == "bad" else Outcome(Result.REPLIED, 200))
    async with running(spec, sink):
        (inbox / "good.txt").write_text("good")
        (inbox / "bad").write_text("bad")
        await eventually(lambda: not os.listdir(inbox))
        await eventually(lambda: sink.counters["handled"] and sink.counters["failed"])
    assert len(sink.events) == 2
    assert warnings == ["a file was given up", str(inbox / "bad"), str(errors / "bad")]
    assert (errors / "bad").read_text() == "bad"
    assert (done / "good.txt").read_text() == "was there before"
    assert sorted(os.listdir(done)) == (["good-1.txt", "good.txt"] if moving else ["good.txt"])


async def test_failed_file_is_left_until_it_changes(inbox: Path, state: Path, warnings: list[str]) -> None:
    (inbox / "a").write_text("1")
    first = RecordingSink(state, lambda _: FAILED)
    async with running(spec_of(inbox), first):
        await eventually(lambda: first.counters["failed"])
    assert warnings[1:] == [str(inbox / "a"), "left where it is; taken again when it changes"]
    again = RecordingSink(state)
    async with running(spec_of(inbox), again):
        (inbox / "a").write_text("22")
        await eventually(lambda: again.events)
    assert bodies(first, again) == Counter([b"1", b"22"])


async def test_removal_that_fails_is_tried_again_without_handling_again(inbox: Path, state: Path) -> None:
    (inbox / "done").write_text("in the way of a folder of that name")
    spec = spec_of(inbox, patterns=("a",), on_success="move", move_to="done", rescan=Duration(0.1))
    sink = RecordingSink(state)
    async with running(spec, sink):
        (inbox / "a").write_text("a")
        await eventually(lambda: sink.counters["remove_failed"] or sink.counters["handled"])
        os.unlink(inbox / "done")
        await eventually(lambda: (inbox / "done" / "a").exists())
    assert len(sink.events) == 1


async def test_renamed_while_in_hand_is_deleted_and_not_handled_again(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    sink.hold = True
    async with running(spec_of(inbox, on_success="delete", rescan=Duration(0.1)), sink):
        (inbox / "a").write_text("a")
        await eventually(lambda: sink.held)
        os.rename(inbox / "a", inbox / "b")
        await stays_at(sink, 1)
        sink.hold = False
        sink.finish_held()
        await eventually(lambda: not os.listdir(inbox))
    assert len(sink.events) == 1


async def test_changed_in_hand_is_not_deleted(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    sink.hold = True
    async with running(spec_of(inbox, on_success="delete"), sink):
        (inbox / "a").write_text("old")
        await eventually(lambda: sink.held)
        (inbox / "a").write_text("newer")
        sink.hold = False
        sink.finish_held()
        await eventually(lambda: not os.listdir(inbox))
    assert bodies(sink) == Counter([b"old", b"newer"])


async def test_initial_new_skips_what_was_there_before_the_first_start(inbox: Path, state: Path) -> None:
    (inbox / "old").write_text("old")
    first = RecordingSink(state)
    async with running(spec_of(inbox, initial="new"), first):
        os.rename(inbox / "old", inbox / "old2")
        (inbox / "new").write_text("new")
        await eventually(lambda: first.events)
    (inbox / "while down").write_text("while down")
    second = RecordingSink(state)
    async with running(spec_of(inbox, initial="new"), second):
        await eventually(lambda: second.events)
    assert bodies(first, second) == Counter([b"new", b"while down"])


async def test_missing_folder_is_waited_for_and_may_go_and_come_back(inbox: Path, state: Path) -> None:
    root = inbox / "not" / "yet"
    sink = RecordingSink(state)
    async with running(spec_of(root), sink, up=False):
        await eventually(lambda: sink.state.startswith("down") and "mkdir -p" in sink.state)
        for i in range(3):
            root.mkdir(parents=True)
            (root / f"{i}").write_text(f"{i}" * 3)
            await eventually(lambda i=i: len(sink.events) == i + 1)
            assert sink.state == "up"
            shutil.rmtree(inbox / "not")
            await eventually(lambda: sink.state.startswith("down"))
    assert bodies(sink) == once(3)


async def test_at_most_max_in_flight(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    sink.hold = True
    for i in range(10):
        (inbox / f"{i}").write_text(f"{i}" * 3)
    async with running(spec_of(inbox, max_in_flight=3), sink):
        await eventually(lambda: len(sink.held) == 3)
        await stays_at(sink, 3)
        sink.hold = False
        sink.finish_held()
        await eventually(lambda: len(sink.events) == 10)
    assert [event.path for event in sink.events[:3]] == ["0", "1", "2"]


async def test_stopped_waits_for_what_is_in_hand(inbox: Path, state: Path) -> None:
    (inbox / "a").write_text("a")
    sink = RecordingSink(state)
    sink.hold = True
    async with running(spec_of(inbox), sink) as task:
        await eventually(lambda: sink.held)
        task.cancel()
        await stays_at(sink, 1)
        assert not task.done()
        sink.finish_held()
        await eventually(task.done)
    again = RecordingSink(state)
    async with running(spec_of(inbox), again):
        (inbox / "b").write_text("b")
        await eventually(lambda: again.events)
    assert bodies(sink, again) == Counter([b"a", b"b"])


async def test_poll_finds_files_without_kernel_events(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox, poll=True, poll_interval=Duration(0.05)), sink):
        write_in_pieces(inbox / "a", "a")
        await eventually(lambda: sink.events)
        write_in_pieces(inbox / "a", "b!")
        await eventually(lambda: len(sink.events) == 2)
    assert bodies(sink) == Counter([b"aaa", b"b!b!b!"])


async def test_overflow_of_the_kernels_queue_is_healed(inbox: Path, state: Path, monkeypatch: Any) -> None:
    """The reader is held up while more happens than the kernel keeps."""
    opened: list[inotify.Inotify] = []
    original = inotify.Inotify.__init__

    def remember(self: inotify.Inotify, wake: Any) -> None:
        original(self, wake)
        opened.append(self)

    monkeypatch.setattr(inotify.Inotify, "__init__", remember)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = [inbox / "one.tmp", inbox / "two.tmp"]
    names[0].touch()
    sink = RecordingSink(state)
    async with running(spec_of(inbox), sink):
        with opened[0]._lock:
            for i in range(limit):
                os.rename(names[i % 2], names[1 - i % 2])
                if i % 200 == 0:
                    (inbox / f"{i}").write_text(f"{i}" * 3)
        expected = Counter({f"{i}".encode() * 3: 1 for i in range(0, limit, 200)})
        await eventually(lambda: len(sink.events) >= len(expected), 20)
    assert sink.counters["overflows"] >= 1
    assert bodies(sink) == expected


async def test_no_descriptor_and_no_thread_is_left(inbox: Path, state: Path) -> None:
    def resources() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = resources()
    for i in range(20):
        sink = RecordingSink(state)
        async with running(spec_of(inbox), sink):
            (inbox / f"{i}").write_text(f"{i}")
            await eventually(lambda sink=sink: sink.events)
    assert resources() == before


async def test_state_is_not_shared_by_two(inbox: Path, state: Path) -> None:
    async with running(spec_of(inbox), RecordingSink(state)):
        with pytest.raises(SourceUnavailable, match="another process"):
            await run(spec_of(inbox), RecordingSink(state))


async def test_at_most_once_is_remembered_before(inbox: Path, state: Path) -> None:
    """A second trigger, started from what is on disk while the first has the file in hand, does not take it."""
    (inbox / "a").write_text("a")
    sink = RecordingSink(state)
    sink.hold = True
    copied = state.parent / "copied"
    async with running(spec_of(inbox, delivery="at-most-once"), sink):
        await eventually(lambda: sink.held)
        shutil.copytree(state, copied)
        sink.finish_held()
    again = RecordingSink(copied)
    async with running(spec_of(inbox), again):
        (inbox / "b").write_text("b")
        await eventually(lambda: again.events)
    assert bodies(again) == Counter([b"b"])


async def test_files_that_are_gone_are_forgotten(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox, rescan=Duration(0.05)), sink):
        for turn in range(15):
            for i in range(150):
                (inbox / f"{turn}-{i}").write_text(f"{turn}-{i}")
            await eventually(lambda turn=turn: sink.counters["handled"] == 150 * (turn + 1))
            for name in os.listdir(inbox):
                os.unlink(inbox / name)
        await eventually(lambda: (state / "handled.log").stat().st_size <= COMPACT_ABOVE)
    assert len(sink.events) == 15 * 150


async def test_names_that_are_not_utf8(inbox: Path, state: Path) -> None:
    (inbox / os.fsdecode(b"b\xff")).write_text("a")
    sink = RecordingSink(state)
    async with running(spec_of(inbox), sink):
        event: Event = (await eventually(lambda: sink.events))[0]
    assert event.path == b"b\xff"


async def test_file_that_may_not_be_read_is_tried_again(
    inbox: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "a").write_text("a")
    original = os.open

    def locked(path: Any, *rest: Any, **keys: Any) -> int:
        if path == str(inbox / "a"):
            raise PermissionError(13, "Permission denied")
        return original(path, *rest, **keys)

    sink = RecordingSink(state)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", locked)
        async with running(spec_of(inbox, rescan=Duration(0.05)), sink):
            await eventually(lambda: sink.counters["denied"] >= 2)
            patched.undo()
            await eventually(lambda: sink.events)
    assert bodies(sink) == Counter([b"a"])


async def test_limit_on_inotify_instances_says_what_to_raise(
    inbox: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: Any) -> int:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(inotify.Inotify, "_create_inotify_fd", classmethod(exhausted))
    with pytest.raises(SourceUnavailable, match="max_user_instances"):
        await run(spec_of(inbox), RecordingSink(state))
    monkeypatch.undo()
    async with running(spec_of(inbox), RecordingSink(state)):  # nothing was left locked
        pass


async def test_limit_on_watches_leaves_the_rescan(inbox: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify.Inotify, "watch", exhausted)
    sink = RecordingSink(state)
    async with running(spec_of(inbox, rescan=Duration(0.05)), sink):
        (inbox / "a").write_text("a")
        await eventually(lambda: sink.events)
    assert sink.counters["unwatched"] >= 1


async def test_no_descriptor_is_inherited_by_workers(inbox: Path, state: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with running(spec_of(inbox), RecordingSink(state)):
        opened = [int(name) for name in set(os.listdir("/proc/self/fd")) - before]
        alive = [number for number in opened if os.path.lexists(f"/proc/self/fd/{number}")]
        assert len(alive) >= 4
        assert not any(os.get_inheritable(number) for number in alive)


async def test_file_gone_before_it_is_read(inbox: Path, state: Path) -> None:
    sink = RecordingSink(state)
    async with running(spec_of(inbox), sink):
        (inbox / "a").write_text("a")
        os.unlink(inbox / "a")
        await eventually(lambda: sink.counters["vanished"])
    assert not sink.events


async def test_moving_into_the_watched_folder_itself_is_refused(inbox: Path, state: Path) -> None:
    with pytest.raises(SpecError, match="the folder that is watched"):
        await run(spec_of(inbox, on_success="move", move_to="."), RecordingSink(state))
