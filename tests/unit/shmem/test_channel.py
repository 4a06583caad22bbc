"""The channel: what goes in comes out, in order, whole; what cannot be is refused."""

from __future__ import annotations

import os
import random
import struct
import threading
from pathlib import Path

import pytest

from shmem import _channel
from shmem._channel import NoSpace, RingBroken, RingClosed
from shmem.segment import FOLDER
from tests.support.channel_pair import NO_TEXTS, Pair, channel_pair
from tests.support.tools import lacking

_HEAD = struct.Struct("<qqiIIII13I")
_HEADER_BYTES = _channel.HEADER_BYTES
_EVENT_TAIL, _EVENT_HEAD, _REPLY_TAIL = 128, 192, 320


def _take(pair: Pair) -> tuple[int, int, int, bytes]:
    record = pair.worker.take()
    assert record is not None
    return record


def test_an_event_arrives_as_it_was_put() -> None:
    with channel_pair() as pair:
        texts = ("text/plain", b"POST", "/ä", "u", "t", "e", "ty", "tv", "v", "http", "web")
        headers = [("Name", b"\xff"), (b"x", "y")]
        assert pair.processor.put_event(9, _channel.JSON_BODY, 5, -6, 7, 8, texts, headers, b"a=1", b"body")
        kind, flags, id, head = _take(pair)
        assert (kind, flags, id) == (_channel.EVENT, _channel.JSON_BODY, 9)
        stamp, offset, shard, shards, body_size, header_count, field_count, *ends = _HEAD.unpack_from(head)
        assert (stamp, offset, shard, shards, body_size, header_count) == (5, -6, 7, 8, 4, 2)
        assert field_count == 0xFFFFFFFF
        text = head[_HEAD.size :]
        parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        assert parts[:11] == [
            b"text/plain",
            b"POST",
            "/ä".encode(),
            b"u",
            b"t",
            b"e",
            b"ty",
            b"tv",
            b"v",
            b"http",
            b"web",
        ]
        assert parts[11] == struct.pack("<II", 4, 1) + b"Name\xff" + struct.pack("<II", 1, 1) + b"xy"
        assert parts[12] == b"a=1"
        assert pair.worker.body() == b"body"


def test_replies_logs_and_control_arrive_as_they_were_put() -> None:
    with channel_pair() as pair:
        pair.worker.control(_channel.READY)
        pair.worker.log(3, 2, 99, "message", '{"a": 1}')
        pair.worker.reply(3, 201, "text/plain", {"X": "1"}, "grün")
        pair.worker.control(_channel.FAILED, b"why")
        ready, log, reply, failed = pair.processor.drain()
        assert ready[0] == _channel.READY
        assert log == (_channel.LOG, 3, 2, 99, "message", [], b'{"a": 1}')
        assert reply[:3] == (_channel.REPLY, 3, 201)
        assert reply[4:] == ("text/plain", [("X", "1")], "grün".encode())
        assert (failed[0], failed[6]) == (_channel.FAILED, b"why")


def test_random_sizes_keep_order_and_content_across_many_wraps() -> None:
    chance = random.Random(1)
    with channel_pair(4096) as pair:
        sent: list[bytes] = []
        for id in range(1, 5000):
            body = chance.randbytes(chance.choice([0, 1, 7, 8, 9, 100, 500, 700]))
            while not pair.put(id, body):
                record = _take(pair)
                assert pair.worker.body() == sent[record[2] - 1]
                pair.worker.release()
            sent.append(body)


def test_a_body_over_a_quarter_of_the_ring_travels_apart_and_leaves_nothing() -> None:
    body = os.urandom(300_000)
    with channel_pair() as pair:
        for look in (pair.worker.body, pair.worker.view, None):
            assert pair.put(1, body)
            _take(pair)
            if look is not None:
                seen = look()
                assert bytes(seen) == body
                del seen
            pair.worker.release()
            assert list(FOLDER.glob(f"{pair.segment.name}-*")) == []
        pair.worker.reply(1, 200, "", None, body)
        assert pair.processor.drain()[0][6] == body
        pair.put(2, body)
        name = pair.segment.name
    assert list(FOLDER.glob(f"{name}*")) == []


def test_a_large_body_that_is_no_file_never_blocks_the_processor() -> None:
    with channel_pair() as pair:
        pair.worker.reply(1, 200, "", None, bytes(100_000))
        (apart,) = FOLDER.glob(f"{pair.segment.name}-r1")
        apart.unlink()
        os.mkfifo(apart)  # opening one waits for a writer
        with pytest.raises(RingBroken, match="100000 bytes"):
            pair.processor.drain()


def test_a_full_dev_shm_refuses_the_event_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with channel_pair() as pair:
        (FOLDER / f"{pair.segment.name}-e1").touch()  # the name is taken: stands for any failure to create
        with pytest.raises(RingBroken, match="500000 bytes"):
            pair.put(1, b"x" * 500_000)
        assert pair.put(2, b"small")
        assert _take(pair)[2] == 2
        assert issubclass(NoSpace, Exception)


def test_text_over_a_quarter_of_the_ring_can_never_fit() -> None:
    with channel_pair(4096) as pair:
        with pytest.raises(ValueError, match="quarter"):
            pair.put(1, path="/" + "x" * 2000)
        assert pair.put(2)


def test_begun_tells_what_a_dead_worker_had_in_hand() -> None:
    with channel_pair() as pair:
        first, second = pair.put(1), pair.put(2)
        assert not pair.processor.begun(first)
        _take(pair)
        assert pair.processor.begun(first)
        assert not pair.processor.begun(second)


def test_views_keep_the_slot_and_released_views_raise() -> None:
    with channel_pair() as pair:
        pair.put(1, b"first")
        _take(pair)
        view = pair.worker.view()
        part = view[1:3]
        assert view.readonly
        with pytest.raises(BufferError):
            pair.worker.release()
        part.release()
        view.release()
        pair.worker.release()
        with pytest.raises(ValueError, match="released"):
            bytes(view)
        with pytest.raises(RuntimeError):
            pair.worker.body()


def test_taking_twice_without_release_is_refused() -> None:
    with channel_pair() as pair:
        pair.put(1)
        pair.put(2)
        _take(pair)
        with pytest.raises(RuntimeError, match="release"):
            pair.worker.take()


def test_wait_returns_for_a_record_a_timeout_and_the_end() -> None:
    with channel_pair() as pair:
        assert pair.worker.wait(0.01) is False
        waiter = threading.Thread(target=pair.worker.wait)
        waiter.start()
        pair.put(1)
        waiter.join(5)
        assert not waiter.is_alive()
        _take(pair)
        pair.worker.release()
        descriptor = os.dup(pair.ring_worker)
        os.dup2(os.open("/dev/null", os.O_WRONLY), pair.ring_worker)
        os.close(descriptor)
        with pytest.raises(RingClosed):
            pair.worker.wait()


def test_the_processor_sees_that_the_worker_is_gone() -> None:
    with channel_pair() as pair:
        assert pair.processor.sleep()
        pair.worker.reply(1, 200, "", None, b"last words")
        pair.worker_gone()
        assert pair.processor.awake() or True
        assert pair.processor.awake() is False
        assert pair.processor.drain()[0][6] == b"last words"


def test_a_full_reply_ring_blocks_the_worker_until_there_is_room() -> None:
    with channel_pair(4096) as pair:
        done = threading.Event()

        def flood() -> None:
            for id in range(1, 101):
                pair.worker.reply(id, 200, "", None, b"x" * 500)
            done.set()

        threading.Thread(target=flood).start()
        got: list[int] = []
        while len(got) < 100:
            got += [record[1] for record in pair.processor.drain()]
        assert got == list(range(1, 101))
        assert done.wait(5)


def test_log_lines_too_long_for_the_ring_are_cut() -> None:
    with channel_pair(4096) as pair:
        pair.worker.log(1, 1, 0, "m" * 9000, '{"f": "' + "x" * 9000 + '"}')
        _, _, _, _, message, _, fields = pair.processor.drain()[0]
        assert 0 < len(message) < 9000
        assert fields == b""


@pytest.mark.parametrize("tail", [3, 8, 65537, 70000, 0xFFFFFFF8])
def test_a_tail_that_cannot_be_breaks_the_channel_and_nothing_else(tail: int) -> None:
    with channel_pair() as pair:
        struct.pack_into("<I", pair.segment.buffer, _REPLY_TAIL, tail)
        with pytest.raises(RingBroken):
            pair.processor.drain()


def test_replies_before_a_broken_record_were_given() -> None:
    with channel_pair() as pair:
        for id in (1, 2, 3):
            pair.worker.reply(id, 200, "", None, b"body of 8")
        third = _HEADER_BYTES + 65536 + 2 * 64
        struct.pack_into("<I", pair.segment.buffer, third, 9999)
        assert [record[1] for record in pair.processor.drain()] == [1, 2]
        for _ in range(2):
            with pytest.raises(RingBroken):
                pair.processor.drain()


def test_a_head_that_cannot_be_breaks_the_channel_and_nothing_else() -> None:
    with channel_pair(4096) as pair:
        struct.pack_into("<I", pair.segment.buffer, _EVENT_HEAD, 8192)  # more given back than was ever put
        with pytest.raises(RingBroken):
            for id in range(1, 100):
                pair.put(id, b"x" * 900)


def test_scribbling_over_replies_never_harms_the_processor() -> None:
    """Random bytes anywhere in the segment: an error or wrong content, never a crash or a hang."""
    chance = random.Random(2)
    for _ in range(300):
        with channel_pair(4096) as pair:
            for id in range(1, 6):
                pair.worker.reply(id, 200, "text/plain", {"A": "b"}, chance.randbytes(chance.randrange(600)))
            for _ in range(chance.randrange(1, 40)):
                where = chance.choice([chance.randrange(len(pair.segment.buffer)), 4096 * 2 + chance.randrange(4096)])
                pair.segment.buffer[where] = chance.randrange(256)
            try:
                for _ in range(10):
                    pair.processor.drain()
                    pair.put(1, b"x" * 100)
            except (RingBroken, ValueError, NoSpace):
                pass


def test_another_protocol_version_is_refused() -> None:
    with channel_pair() as pair:
        struct.pack_into("<I", pair.segment.buffer, 8, 2)
        read, write = os.pipe()
        with pytest.raises(RingBroken, match="protocol"):
            _channel.WorkerChannel(pair.segment.name, read, write)
        os.close(read)
        os.close(write)


def test_bad_arguments_are_errors_not_crashes() -> None:
    with channel_pair() as pair:
        bad = [
            (1, 0, 0, 0, -1, 0, ("",) * 3, (), b"", b""),
            (1, 0, 0, 0, -1, 0, NO_TEXTS, [("a",)], b"", b""),
            (1, 0, 0, 0, -1, 0, NO_TEXTS, (), b"", 5),
            (1, 0, 0, 0, -1, 0, (1, *NO_TEXTS[1:]), (), b"", b""),
            (-1, 0, 0, 0, -1, 0, NO_TEXTS, (), b"", b""),
        ]
        for arguments in bad:
            with pytest.raises((TypeError, OverflowError)):
                pair.processor.put_event(*arguments)  # type: ignore[arg-type]
        assert pair.worker.take() is None


def test_segments_of_dead_processors_are_swept_and_others_are_not(tmp_path: Path) -> None:
    from shmem.segment import sweep

    stale = [FOLDER / "headrace-999999999-1-0", FOLDER / f"headrace-{os.getpid()}-1-0-e5"]
    for path in stale:
        path.touch()
    with channel_pair() as pair:
        removed = sweep()
        assert {path.name for path in stale} <= set(removed)
        assert (FOLDER / pair.segment.name).exists()
    assert not any(path.exists() for path in stale)


def test_bodies_over_the_limit_are_refused_both_ways_and_leave_nothing() -> None:
    with channel_pair() as pair:
        pair.processor.limit(30_000)
        with pytest.raises(ValueError, match="limit of 30000"):
            pair.put(1, bytes(30_001))
        assert pair.put(2, bytes(30_000))
        pair.worker.reply(2, 200, "text/plain", {}, bytes(30_001))
        pair.worker.reply(3, 200, "text/plain", {}, bytes(30_000))
        refused, taken = pair.processor.drain()
        assert refused[:3] == (_channel.REPLY, 2, 500)
        assert b"30001 bytes" in refused[6]
        assert taken[6] == bytes(30_000)
        assert not list(FOLDER.glob(f"{pair.segment.name}-r*"))


def test_a_large_event_belongs_to_the_user_who_opens_it() -> None:
    if os.geteuid() != 0:
        lacking("needs root: only root gives files away")
    with channel_pair() as pair:
        pair.processor.limit(1 << 30, 12345, 23456)
        assert pair.put(1, bytes(100_000))
        (body,) = FOLDER.glob(f"{pair.segment.name}-e*")
        assert (body.stat().st_uid, body.stat().st_gid) == (12345, 23456)


def test_names_that_anybody_may_put_there_do_not_stop_a_sweep() -> None:
    from shmem.segment import sweep

    folder, odd, stale = (FOLDER / name for name in ("headrace-999999-9-9", "headrace-²-1-1", "headrace-999999998-1-0"))
    folder.mkdir()
    odd.touch()
    stale.touch()
    try:
        assert stale.name in sweep()
    finally:
        folder.rmdir()
        odd.unlink()


def test_a_channel_that_cannot_be_opened_takes_no_descriptor_along() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RingClosed):
        _channel.WorkerChannel("headrace-none", 0, 0)
    with pytest.raises(TypeError):
        _channel.WorkerChannel.__new__(_channel.WorkerChannel)
    os.fstat(0)
    assert os.listdir("/proc/self/fd") == before
