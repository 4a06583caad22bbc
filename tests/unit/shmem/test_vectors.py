"""The vectors: what is checked in is what the script writes, and the C core reads and writes the same bytes."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from shmem import _channel
from shmem.segment import FOLDER
from shmem.vectors import generate
from tests.support.c_program import build, run
from tests.support.channel_pair import Pair, channel_pair

VECTORS = Path(generate.__file__).parent
RECORDS = sorted(path.stem for path in VECTORS.glob("records/*.json"))
EVENTS = [name for name in RECORDS if name.startswith("event")]
CONTROLS = [name for name in RECORDS if not name.startswith(("event", "reply", "log", "publish"))]
FROM_WORKER = [
    name for name in RECORDS if name.startswith(("reply", "log", "ready", "failed", "drained", "unknown", "publish"))
]
SEGMENTS = sorted(path.stem for path in VECTORS.glob("segments/*.json"))
EVENT_RING, REPLY_RING, RING = 4096, 8192, 4096
HEAD = struct.Struct("<qqiIIII13I")


def record(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / "records" / f"{name}.json").read_bytes())  # type: ignore[no-any-return]


def image(name: str) -> bytes:
    return (VECTORS / "records" / f"{name}.bin").read_bytes()


def preload(pair: Pair, name: str, ring: int, tail: int, way: str) -> dict[str, Any]:
    """Publish a vector's bytes the way a foreign side would; a large body stands in a segment of its own."""
    vector, data = record(name), image(name)
    pair.segment.buffer[ring : ring + len(data)] = data
    struct.pack_into("<I", pair.segment.buffer, tail, len(data))
    if "LARGE" in vector["flags"]:
        (FOLDER / f"{pair.segment.name}-{apart(vector, way)}").write_bytes(generate.raw(vector["body"]))
    return vector


def apart(vector: dict[str, Any], way: str) -> str:
    """The end of the name of a large body's segment."""
    return f"p{vector['nanoseconds']:x}" if vector["kind"] == "PUBLISH" else f"{way}{vector['id']:x}"


def kind_of(vector: dict[str, Any]) -> int:
    return int(generate.KINDS.get(vector["kind"], vector["kind"]))


def lenient(value: Any) -> str:
    return generate.raw(value).decode(errors="replace")


def unpaired(block: bytes) -> list[tuple[bytes, bytes]]:
    items = []
    while block:
        name, value = struct.unpack_from("<II", block)
        items.append((block[8 : 8 + name], block[8 + name : 8 + name + value]))
        block = block[8 + name + value :]
    return items


def test_the_vectors_are_what_their_script_writes() -> None:
    assert generate.drift() == []


@pytest.mark.parametrize("name", EVENTS)
def test_a_worker_takes_the_event(name: str) -> None:
    with channel_pair(RING) as pair:
        vector = preload(pair, name, EVENT_RING, 128, "e")
        taken = pair.worker.take()
        assert taken is not None
        kind, flags, id, head = taken
        stamp, offset, shard, shards, size, header_count, field_count, *ends = HEAD.unpack_from(head)
        parts = [head[HEAD.size + begin : HEAD.size + end] for begin, end in zip([0, *ends], ends, strict=False)]
        assert (kind, flags, id) == (_channel.EVENT, generate.flags_of(vector), vector["id"])
        numbers = [vector[key] for key in ("timestamp_ns", "offset", "shard_id", "num_shards")]
        assert [stamp, offset, shard, shards] == numbers
        assert parts[:11] == [generate.raw(vector["texts"][key]) for key in generate.TEXTS]
        headers = [(generate.raw(left), generate.raw(right)) for left, right in vector["headers"]]
        assert (header_count, unpaired(parts[11])) == (len(headers), headers)
        if isinstance(vector["fields"], list):
            fields = [(generate.raw(left), generate.raw(right)) for left, right in vector["fields"]]
            assert (field_count, unpaired(parts[12])) == (len(fields), fields)
        else:
            assert (field_count, parts[12]) == (generate.RAW_QUERY, generate.raw(vector["fields"]))
        body = generate.raw(vector["body"])
        assert (size, pair.worker.body()) == (len(body), body)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_worker_takes_what_is_no_event(name: str) -> None:
    with channel_pair(RING) as pair:
        vector = preload(pair, name, EVENT_RING, 128, "e")
        assert pair.worker.take() == (kind_of(vector), 0, vector["id"], b"")
        assert pair.worker.body() == generate.raw(vector["body"])
        pair.worker.release()
        assert pair.worker.take() is None


@pytest.mark.parametrize("name", FROM_WORKER)
def test_the_processor_drains_it(name: str) -> None:
    with channel_pair(RING) as pair:
        vector = preload(pair, name, REPLY_RING, 320, "r")
        headers = [(lenient(left), lenient(right)) for left, right in vector["headers"]]
        numbers = (kind_of(vector), vector["id"], vector["status"], vector["nanoseconds"])
        assert pair.processor.drain() == [
            (*numbers, lenient(vector["text"]), headers, generate.raw(vector["body"])),
        ]


def given(fields: Any) -> Any:
    if not isinstance(fields, list):
        return generate.raw(fields)
    return [(generate.raw(left), generate.raw(right)) for left, right in fields]


def put(pair: Pair, name: str) -> None:
    """Put the vector through the C side that makes such records."""
    vector = record(name)
    kind, id, body = kind_of(vector), vector["id"], generate.raw(vector["body"])
    flags = generate.flags_of(vector) & ~_channel.LARGE
    if vector["kind"] == "EVENT":
        numbers = [vector[key] for key in ("timestamp_ns", "offset", "shard_id", "num_shards")]
        texts = tuple(generate.raw(vector["texts"][key]) for key in generate.TEXTS)
        stamp, offset, shard, shards = numbers
        pairs = given(vector["headers"]), given(vector["fields"])
        assert pair.processor.put_event(id, flags, stamp, offset, shard, shards, texts, *pairs, body)
    elif vector["kind"] == "REPLY":
        text: Any = generate.raw(vector["text"])
        pair.worker.reply(id, vector["status"], text, given(vector["headers"]), body)
    elif vector["kind"] == "LOG":
        text = generate.raw(vector["text"])
        pair.worker.log(id, vector["status"], vector["nanoseconds"], text, body.decode())
    elif vector["kind"] == "PUBLISH":
        pair.worker.publish(id, generate.raw(vector["text"]), given(vector["headers"]), body)
    elif vector["kind"] in ("STOP", "DRAIN"):
        assert pair.processor.put_control(kind, id, body)
    else:
        pair.worker.control(kind, body)


# the worker measures a handler's time itself; nobody of ours sends an unknown kind
WRITTEN = [name for name in RECORDS if name not in ("reply-timed", "unknown-kind")]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_c_side_writes_the_same_bytes(name: str) -> None:
    with channel_pair(RING) as pair:
        put(pair, name)
        vector, data = record(name), image(name)
        to_worker = vector["kind"] in ("EVENT", "STOP", "DRAIN")
        at = EVENT_RING if to_worker else REPLY_RING
        assert bytes(pair.segment.buffer[at : at + len(data)]) == data
        assert struct.unpack_from("<I", pair.segment.buffer, 128 if to_worker else 320) == (len(data),)
        if "LARGE" in vector["flags"]:
            (large,) = FOLDER.glob(f"{pair.segment.name}-{apart(vector, 'e' if to_worker else 'r')}")
            assert large.read_bytes() == generate.raw(vector["body"])


REPLAYED = ["fresh", "ready", "waiting", "wrapped"]


@pytest.mark.parametrize("name", REPLAYED)
def test_the_c_side_comes_to_the_same_segment(name: str) -> None:
    expected = bytearray((VECTORS / "segments" / f"{name}.bin").read_bytes())
    with channel_pair(RING) as pair:
        for step in json.loads((VECTORS / "segments" / f"{name}.json").read_bytes())["steps"]:
            if "put" in step:
                put(pair, step["put"])
            elif step["take"] == "events":
                assert pair.worker.take() is not None
                pair.worker.release()
            else:
                assert len(pair.processor.drain(1)) == 1
        found = bytearray(pair.segment.buffer[: len(expected)])
    # what differs from run to run: pids, salt, the worker's state and beat, since when it has something in hand
    for begin, end in ((24, 40), (64, 72), (76, 88)):
        expected[begin:end] = found[begin:end] = bytes(end - begin)
    assert bytes(found) == bytes(expected)


def test_positions_wrap_between_head_and_tail() -> None:
    vector = json.loads((VECTORS / "segments" / "position-wrap.json").read_bytes())
    assert all(vector[ring]["head"] > vector[ring]["tail"] > 0 for ring in ("events", "replies"))


def test_the_c_core_decodes_every_segment(tmp_path: Path) -> None:
    program = build(tmp_path / "decode", "decode_segment.c", flags=["-O1", "-g", "-fsanitize=address,undefined"])
    paths = [VECTORS / "segments" / f"{name}.bin" for name in SEGMENTS]
    done = run(program, *map(str, paths))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line for path in paths for line in expected_lines(path)]


def expected_lines(path: Path) -> list[str]:
    vector = json.loads(path.with_suffix(".json").read_bytes())
    if vector["expect"] != "ok":
        rings = ["events broken", "replies broken"]
        return [str(path), *(["mismatch"] if vector["expect"] == "mismatch" else rings)]
    lines = [str(path)]
    for ring in ("events", "replies"):
        for name in vector[ring]["waiting"]:
            item = record(name)
            size = len(image(name))
            lines.append(f"{ring} {kind_of(item)} {generate.flags_of(item)} {item['id']} {size}")
        lines.append(f"{ring} end")
    return lines


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_worker_refuses_what_it_must_refuse(name: str) -> None:
    data = (VECTORS / "segments" / f"{name}.bin").read_bytes()
    expect = json.loads((VECTORS / "segments" / f"{name}.json").read_bytes())["expect"]
    with channel_pair(RING) as pair:
        pair.segment.buffer[: len(data)] = data
        if expect == "mismatch":
            read, write = os.pipe()
            with pytest.raises(_channel.RingBroken, match="not a channel"):
                _channel.WorkerChannel(pair.segment.name, read, write)
            os.close(read)
            os.close(write)
        elif expect == "broken":
            with pytest.raises(_channel.RingBroken):
                pair.worker.take()
            with pytest.raises(_channel.RingBroken):
                pair.processor.drain()
