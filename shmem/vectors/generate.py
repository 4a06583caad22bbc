"""Writes the vectors: byte-exact records and segments, each with what it decodes to.

Why: every language that speaks the channel's protocol is tested against the same bytes. This script was written from
PROTOCOL.md with `struct` alone, so that it shares no mistake with the C core.

    python shmem/vectors/generate.py            write them beside this script
    python shmem/vectors/generate.py --check    exit 1 when what is checked in differs from what would be written

See README.md for the form of the JSON files.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {"PAD": 0, "EVENT": 1, "REPLY": 2, "LOG": 3, "STOP": 4, "DRAIN": 5, "READY": 6, "FAILED": 7, "DRAINED": 8,
         "PUBLISH": 9}  # fmt: skip
FLAGS = {"MORE": 1, "BATCH": 2, "LARGE": 4, "JSON_BODY": 8}
TEXTS = [
    "content_type",
    "method",
    "path",
    "url",
    "topic",
    "event_id",
    "type",
    "type_version",
    "version",
    "kind",
    "name",
]
RAW_QUERY = 0xFFFFFFFF
RING, PAGE = 4096, 4096
SALT = 0x0123456789ABCDEF
PROCESSOR_PID, WORKER_PID = 4242, 4243

Record = dict[str, Any]


# ------------------------------------------------------------------------------------------------------- records


def raw(value: Any) -> bytes:
    """What a JSON value of ours stands for: text as UTF-8, or `{"hex": ...}`."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else str(value).encode()


def shown(data: bytes) -> Any:
    """Bytes as JSON: text where they are printable UTF-8, else hex."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}
    return text if text.isprintable() else {"hex": data.hex()}


def padded(data: bytes) -> bytes:
    """Zero bytes up to the next multiple of 8."""
    return data + bytes(-len(data) % 8)


def pairs(items: list[list[Any]]) -> bytes:
    """Headers or fields as one block."""
    block = b""
    for name, value in ((raw(name), raw(value)) for name, value in items):
        block += struct.pack("<II", len(name), len(value)) + name + value
    return block


def flags_of(record: Record) -> int:
    """The flags word."""
    return sum(FLAGS[name] for name in record["flags"])


def head(record: Record, size: int) -> bytes:
    """The header that every record has."""
    kind = record["kind"]
    return struct.pack("<IHHQ", size, KINDS.get(kind, kind), flags_of(record), record["id"])


def whole(record: Record, numbers_and_texts: bytes) -> list[bytes]:
    """Put the header before and the body behind: two pieces, each starting at a multiple of 8."""
    body = b"" if "LARGE" in record["flags"] else raw(record["body"])
    size = len(padded(bytes(16) + numbers_and_texts)) + len(padded(body))
    return [head(record, size) + numbers_and_texts, body]


def event_pieces(record: Record) -> list[bytes]:
    """An EVENT."""
    fields = record["fields"]
    is_query = not isinstance(fields, list)
    parts = [raw(record["texts"][name]) for name in TEXTS]
    parts += [pairs(record["headers"]), raw(fields) if is_query else pairs(fields)]
    numbers = struct.pack(
        "<qqiIIII",
        record["timestamp_ns"],
        record["offset"],
        record["shard_id"],
        record["num_shards"],
        len(raw(record["body"])),
        len(record["headers"]),
        RAW_QUERY if is_query else len(fields),
    )
    ends = [sum(map(len, parts[: index + 1])) for index in range(len(parts))]
    return whole(record, numbers + struct.pack("<13I", *ends) + b"".join(parts))


def reply_pieces(record: Record) -> list[bytes]:
    """A REPLY, LOG or control record."""
    text, headers, body = raw(record["text"]), pairs(record["headers"]), raw(record["body"])
    numbers = struct.pack("<QIIIIII", record["nanoseconds"], record["status"], len(record["headers"]), len(text),
                          len(headers), len(body), 0)  # fmt: skip
    return whole(record, numbers + text + headers)


def pieces(record: Record) -> list[bytes]:
    """Any record, without the padding behind each piece."""
    return event_pieces(record) if record["kind"] == "EVENT" else reply_pieces(record)


def encode(record: Record) -> bytes:
    """Any record, its padding zero."""
    return b"".join(map(padded, pieces(record)))


def event(id: int, *flags: str, body: Any = "", headers: Any = (), fields: Any = (), **values: Any) -> Record:
    """An EVENT's JSON; texts by name, numbers by name."""
    texts = {name: values.pop(name, "") for name in TEXTS}
    numbers = {"timestamp_ns": 0, "offset": 0, "shard_id": -1, "num_shards": 0} | values
    query = fields if isinstance(fields, str | dict) else [list(pair) for pair in fields]
    return {"kind": "EVENT", "flags": list(flags), "id": id, **numbers, "texts": texts,
            "headers": [list(pair) for pair in headers], "fields": query, "body": body}  # fmt: skip


def reply(kind: Any, id: int, *flags: str, text: Any = "", headers: Any = (), body: Any = "", **values: int) -> Record:
    """The JSON of any other record. `status` is the level of a LOG."""
    numbers = {"nanoseconds": 0, "status": 0} | values
    return {"kind": kind, "flags": list(flags), "id": id, **numbers, "text": text,
            "headers": [list(pair) for pair in headers], "body": body}  # fmt: skip


ALL_BYTES = bytes(range(256))
LATIN1 = {"hex": "/caf\xe9".encode("latin-1").hex()}
LARGE_BODY = shown(bytes(index % 251 for index in range(1500)))
FULL_TEXTS = {
    "content_type": "application/json; charset=utf-8", "method": "POST", "path": "/räume/1",
    "url": "http://gerät.local:8080/räume/1?a=1", "topic": "raum/1/temperatur",
    "event_id": "0c7d4dd3-4a43-4b9c-8a3e-6b0f5d6f7f10", "type": "com.example.reading", "type_version": "1.2",
    "version": "1.0", "kind": "http", "name": "web",
}  # fmt: skip
HEADERS = [["Content-Type", "application/json"], ["X-Größe", "ü"], ["Empty", ""], ["", "no name"], ["Twice", "1"],
           ["Twice", "2"]]  # fmt: skip

RECORDS: dict[str, Record] = {
    "event-empty": event(1),
    "event-full": event(2, headers=HEADERS, fields=[["a", "1"], ["b", ""], ["", ""]], body='{"t": 21.5}', **FULL_TEXTS,
                        timestamp_ns=1_700_000_000_123_456_789, offset=77, shard_id=3, num_shards=16),
    "event-raw-query": event(3, method="GET", path="/", fields="a=1&b=%20&a=2&=x", kind="http", name="web"),
    "event-not-utf8": event(4, path=LATIN1, headers=[[{"hex": "ff"}, {"hex": "80fe"}]], fields={"hex": "713de9"},
                            body={"hex": "fffe00"}),
    "event-binary-body": event(5, content_type="application/octet-stream", body=shown(ALL_BYTES)),
    "event-extremes": event(2**64 - 1, timestamp_ns=-(2**63), offset=2**63 - 1, shard_id=2**31 - 1,
                            num_shards=2**32 - 1),
    "event-batch-first": event(6, "MORE", "BATCH", body="first of two"),
    "event-batch-last": event(7, "BATCH", body="second of two"),
    "event-json-body": event(8, "JSON_BODY", content_type="text/plain", body="[1, 2]"),
    "event-large": event(0xABC, "LARGE", topic="large", body=LARGE_BODY),
    **{f"event-aligned-{size}": event(10 + size, path="/" * size, body="b" * size) for size in (1, 7, 8, 9)},
    "reply-empty": reply("REPLY", 101, status=200),
    "reply-full": reply("REPLY", 102, status=201, text="application/json", headers=HEADERS, body='{"ok": true}'),
    "reply-timed": reply("REPLY", 103, status=500, text="text/plain", body="it failed", nanoseconds=1_234_567),
    "reply-not-utf8": reply("REPLY", 104, status=200, text={"hex": "746578742fe9"}, headers=[[{"hex": "ff"}, "x"]],
                            body=shown(ALL_BYTES)),
    "reply-large": reply("REPLY", 0xABC, "LARGE", status=200, text="text/plain", body=LARGE_BODY),
    "log-plain": reply("LOG", 0, status=1, nanoseconds=1_700_000_000_000_000_001, text="grün"),
    "log-fields": reply("LOG", 9, status=3, nanoseconds=5, text="it broke", body='{"wheel": 2}'),
    "stop": reply("STOP", 0),
    "drain": reply("DRAIN", 0),
    "ready": reply("READY", 0),
    "failed": reply("FAILED", 0, body="no module named 'räder'"),
    "drained": reply("DRAINED", 0),
    "publish-empty": reply("PUBLISH", 0, nanoseconds=1),
    "publish-full": reply("PUBLISH", 9, nanoseconds=1, text="cloud", body=shown(ALL_BYTES),
                          headers=[[":topic", "räume/1"], [":qos", "2"], [":retain", "1"], ["unit", "°C"]]),
    "publish-large": reply("PUBLISH", 9, "LARGE", nanoseconds=1, text="cloud", body=LARGE_BODY),
    "unknown-kind": reply(99, 5, body="to be given back without an answer"),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------ segments


class Segment:
    """A whole segment of two 4096-byte rings, built the way a processor and a worker would."""

    def __init__(self, about: str, events: int = 0, replies: int = 0) -> None:
        self.about = about
        self.steps: list[dict[str, Any]] = []
        self.bytes = bytearray(PAGE + 2 * RING)
        struct.pack_into("<8sIIIIIIQ", self.bytes, 0, b"HEADRACE", 1, PAGE, RING, RING, PROCESSOR_PID, 0, SALT)
        self.start = {"events": events, "replies": replies}
        self.tails = dict(self.start)
        self.heads = dict(self.start)
        self.sizes: dict[str, list[tuple[int, str]]] = {"events": [], "replies": []}
        self.store_positions()

    def put(self, ring: str, name: str) -> Segment:
        """Publish a record of RECORDS, with a PAD where it would be split."""
        data = encode(RECORDS[name])
        base = PAGE + (RING if ring == "replies" else 0)
        index = self.tails[ring] % RING
        taken = len(data)
        if index + len(data) > RING:
            struct.pack_into("<IHH", self.bytes, base + index, RING - index, 0, 0)
            taken += RING - index
            index = 0
        at = base + index
        for piece in pieces(RECORDS[name]):  # padding is not written: what was there before stays
            self.bytes[at : at + len(piece)] = piece
            at += len(padded(piece))
        self.tails[ring] = (self.tails[ring] + taken) % 2**32
        self.sizes[ring].append((taken, name))
        self.steps.append({"put": name, "ring": ring})
        return self.store_positions()

    def take(self, ring: str) -> Segment:
        """Read the oldest record and give it back."""
        size, _ = self.sizes[ring].pop(0)
        self.heads[ring] = (self.heads[ring] + size) % 2**32
        self.steps.append({"take": ring})
        return self.store_positions()

    def store_positions(self) -> Segment:
        """Tail and head of both rings; `taken` is where the worker has given back."""
        for ring, at in (("events", 128), ("replies", 320)):
            struct.pack_into("<I", self.bytes, at, self.tails[ring])
            struct.pack_into("<I", self.bytes, at + 64, self.heads[ring])
        struct.pack_into("<I", self.bytes, 72, self.heads["events"])
        return self

    def patch(self, form: str, at: int, *values: int) -> Segment:
        """Overwrite what stands at `at`."""
        struct.pack_into(form, self.bytes, at, *values)
        return self

    def json(self, expect: str) -> dict[str, Any]:
        """What it decodes to: `waiting` are the records between head and tail."""
        result: dict[str, Any] = {"about": self.about, "expect": expect}
        if expect != "ok":
            return result
        result |= {"event_bytes": RING, "reply_bytes": RING, "processor_pid": PROCESSOR_PID, "salt": SALT}
        for ring in ("events", "replies"):
            result |= {ring: {"head": self.heads[ring], "tail": self.tails[ring],
                              "waiting": [name for _, name in self.sizes[ring]]}}  # fmt: skip
        return result | {"start": self.start, "steps": self.steps}


def filled(about: str, events: int = 0, replies: int = 0) -> Segment:
    """Records put and taken in turn until both rings have wrapped, and some left waiting."""
    segment = Segment(about, events, replies)
    names = [name for name in RECORDS if name != "event-large" and name.startswith("event")]
    answers = ["reply-empty", "reply-full", "reply-not-utf8", "log-plain", "log-fields"]
    for turn in range(40):
        segment.put("events", names[turn % len(names)]).put("replies", answers[turn % len(answers)])
        if turn >= 4:
            segment.take("events").take("replies")
    return segment


def one(about: str) -> Segment:
    """One event and one reply waiting; what is then broken in it is said in `about`."""
    return Segment(about).put("events", "event-full").put("replies", "reply-full")


EVENTS_AT, REPLIES_AT = PAGE, PAGE + RING
SEGMENTS: dict[str, tuple[Segment, str]] = {
    "fresh": (Segment("as the processor lays it out, before the worker starts"), "ok"),
    "ready": (Segment("a worker has said that it is ready").put("replies", "ready"), "ok"),
    "waiting": (Segment("three events wait, a log record and a reply too").put("events", "event-empty")
                .put("events", "event-full").put("events", "stop").put("replies", "log-fields")
                .put("replies", "reply-full"), "ok"),
    "wrapped": (filled("both rings have gone round, pads were needed"), "ok"),
    "position-wrap": (filled("tails have gone past 2^32, heads have not", 2**32 - 6368, 2**32 - 5200), "ok"),
    "bad-magic": (Segment("another magic").patch("<B", 0, 0x68), "mismatch"),
    "bad-protocol": (Segment("protocol 2").patch("<I", 8, 2), "mismatch"),
    "bad-header-bytes": (Segment("a header of 8192 bytes").patch("<I", 12, 8192), "mismatch"),
    "bad-ring-bytes": (Segment("a ring of 5000 bytes").patch("<I", 16, 5000), "mismatch"),
    "ring-beyond-segment": (Segment("a reply ring larger than the segment").patch("<I", 20, 8192), "mismatch"),
    "tail-beyond-ring": (one("more published than the ring holds").patch("<I", 128, RING + 8)
                         .patch("<I", 320, RING + 8), "broken"),
    "tail-unaligned": (one("tails that are no multiple of 8").patch("<I", 128, 13).patch("<I", 320, 13), "broken"),
    "size-zero": (one("records of size 0").patch("<I", EVENTS_AT, 0).patch("<I", REPLIES_AT, 0), "broken"),
    "size-unaligned": (one("sizes that are no multiple of 8").patch("<I", EVENTS_AT, 21).patch("<I", REPLIES_AT, 21),
                       "broken"),
    "size-beyond-tail": (one("records longer than what was published").patch("<I", EVENTS_AT, 1024)
                         .patch("<I", REPLIES_AT, 1024), "broken"),
    "size-eight": (one("records shorter than their header").patch("<I", EVENTS_AT, 8)
                   .patch("<I", REPLIES_AT, 8), "broken"),
    "pad-in-the-middle": (one("a pad that does not reach the end of the ring").patch("<H", EVENTS_AT + 4, 0)
                          .patch("<H", REPLIES_AT + 4, 0), "broken"),
    "body-beyond-record": (one("bodies longer than their records").patch("<I", EVENTS_AT + 40, 4000)
                           .patch("<I", REPLIES_AT + 40, 4000), "broken"),
    "text-beyond-record": (one("text longer than its record").patch("<I", EVENTS_AT + 100, 4000)
                           .patch("<I", REPLIES_AT + 32, 4000), "broken"),
    "texts-run-backwards": (one("a text that ends before the one before it").patch("<I", EVENTS_AT + 56, 0)
                            .patch("<I", REPLIES_AT + 36, 2**32 - 1), "broken"),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- files


def files() -> dict[str, bytes]:
    """Every vector by its path below this folder."""
    made: dict[str, bytes] = {}
    for name, record in RECORDS.items():
        made[f"records/{name}.bin"] = encode(record)
        made[f"records/{name}.json"] = text(record)
    for name, (segment, expect) in SEGMENTS.items():
        made[f"segments/{name}.bin"] = bytes(segment.bytes)
        made[f"segments/{name}.json"] = text(segment.json(expect))
    return made


def text(value: dict[str, Any]) -> bytes:
    """JSON as it is checked in."""
    return json.dumps(value, indent=1).encode() + b"\n"


def drift() -> list[str]:
    """Paths that differ from what is checked in, are missing there, or are there and no longer made."""
    made = files()
    there = {str(path.relative_to(HERE)): path.read_bytes() for path in HERE.glob("*/*.*") if path.suffix != ".pyc"}
    return sorted(path for path in made.keys() | there.keys() if made.get(path) != there.get(path))


def main() -> int:
    """Write, or compare."""
    if "--check" in sys.argv:
        for path in drift():
            print(f"{path} is not what {Path(__file__).name} writes")
        return 1 if drift() else 0
    for path in drift():
        (HERE / path).unlink(missing_ok=True)
    for path, data in files().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
