"""What the channel's calls make of their arguments."""

from __future__ import annotations

import struct

import pytest

from shmem import _channel
from tests.support.channel_pair import NO_TEXTS, channel_pair

_HEAD = struct.Struct("<qqiIIII13I")


class _Text(str):
    """A str, but not exactly one."""


@pytest.mark.parametrize("empty", ["", b"", _Text("")])
@pytest.mark.parametrize("given", ["topic", b"topic", _Text("topic"), "\udce4", "\ud800x"])
def test_texts_of_every_kind_arrive(given: str | bytes, empty: str | bytes) -> None:
    expected = {"\udce4": b"\xe4", "\ud800x": b"?x"}.get(given, b"topic") if isinstance(given, str) else given
    with channel_pair() as pair:
        texts = (empty,) * 4 + (given,) + (empty,) * 6
        assert pair.processor.put_event(1, 0, 0, 0, -1, 0, texts, (), b"", b"body")
        record = pair.worker.take()
        assert record is not None
        head = record[3]
        ends = _HEAD.unpack_from(head)[7:]
        assert set(ends[:4]) == {0}
        assert set(ends[4:]) == {len(expected)}
        assert head[_HEAD.size :] == expected


def test_text_of_another_type_is_refused_and_nothing_is_put() -> None:
    with channel_pair() as pair:
        with pytest.raises(TypeError, match="str or bytes"):
            pair.processor.put_event(1, 0, 0, 0, -1, 0, (3, *NO_TEXTS[1:]), (), b"", b"")  # type: ignore[arg-type]
        assert pair.worker.take() is None


def test_drain_and_wait_look_at_their_argument() -> None:
    with channel_pair() as pair:
        for number in range(3):
            pair.worker.control(_channel.DRAINED, bytes([number]))
        assert [record[6] for record in pair.processor.drain(2)] == [b"\0", b"\1"]
        assert pair.processor.drain(0) == []
        assert len(pair.processor.drain()) == 1
        assert pair.worker.wait(0.0) is False
        for wrong in (("a",), (1, 2)):
            with pytest.raises(TypeError):
                pair.processor.drain(*wrong)
            with pytest.raises(TypeError):
                pair.worker.wait(*wrong)


def test_the_beat_grows_with_every_record_and_wait() -> None:
    with channel_pair() as pair:
        before = pair.processor.beat
        pair.put(1)
        pair.worker.wait()
        pair.worker.take()
        assert pair.processor.beat == before + 2
