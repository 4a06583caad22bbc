"""What a handler publishes comes out in order, whole; a large body travels apart and leaves nothing."""

from __future__ import annotations

import pytest

from shmem import _channel
from shmem.segment import FOLDER
from tests.support.channel_pair import Pair, channel_pair


def _apart(pair: Pair) -> list[str]:
    return sorted(path.name.removeprefix(pair.segment.name) for path in FOLDER.glob(f"{pair.segment.name}-*"))


def test_publications_are_numbered_and_keep_their_order_before_the_reply() -> None:
    with channel_pair() as pair:
        pair.worker.publish(5, "cloud", [(":topic", "a/b"), ("unit", "\u00b0C")], b"one")
        pair.worker.publish(5, "", [], "two")
        pair.worker.reply(5, 200, "", None, b"")
        first, second, reply = pair.processor.drain()
        assert first == (_channel.PUBLISH, 5, 0, 1, "cloud", [(":topic", "a/b"), ("unit", "\u00b0C")], b"one")
        assert second == (_channel.PUBLISH, 5, 0, 2, "", [], b"two")
        assert reply[0] == _channel.REPLY


def test_large_bodies_of_one_event_do_not_collide() -> None:
    with channel_pair(4096) as pair:
        bodies = [bytes([number]) * 50_000 for number in range(3)]
        for body in bodies[:2]:
            pair.worker.publish(5, "cloud", [], body)
        pair.worker.reply(5, 200, "", None, bodies[2])
        assert _apart(pair) == ["-p1", "-p2", "-r5"]
        assert [record[6] for record in pair.processor.drain()] == bodies
        assert _apart(pair) == []


def test_a_publication_over_the_limit_is_refused_and_leaves_nothing() -> None:
    with channel_pair(4096) as pair:
        pair.processor.limit(1000)
        pair.worker.publish(5, "cloud", [], bytes(50_000))
        ((kind, id, status, _, _, _, body),) = pair.processor.drain()
        assert (kind, id, status) == (_channel.PUBLISH, 5, 500)
        assert b"50000 bytes is over the function's maxBodyBytes, 1000" in body
        assert _apart(pair) == []


def test_bad_arguments_are_errors_not_crashes() -> None:
    with channel_pair(4096) as pair:
        publish = pair.worker.publish
        for wrong in (
            (5,),
            (5, "t", [], 7),
            (5, 7, [], b""),
            (5, "t", 7, b""),
            (5, "t", [(1, 2)], b""),
            ("x", "t", [], b""),
        ):
            with pytest.raises(TypeError):
                publish(*wrong)  # type: ignore[arg-type, call-arg]
        with pytest.raises(ValueError, match="quarter"):
            publish(5, "t" * 5000, [], b"")
        assert pair.processor.drain() == []
