"""What a function.yaml may say about a serial line, and what it is told when it may not."""

from typing import Any

import msgspec
import pytest

from agent.model.duration import parse_duration
from agent.model.errors import SpecError
from agent.model.generated import dump_processor_yaml, read_generated
from agent.model.load import load_text
from agent.triggers.serial.spec import Match, SerialSpec


def serial_spec(**keys: Any) -> SerialSpec:
    def decode(kind: type, value: Any) -> Any:
        return parse_duration(value)

    return msgspec.convert({"kind": "serial", "device": "/dev/ttyX", **keys}, SerialSpec, dec_hook=decode)


def test_the_smallest_spec_reads_lines() -> None:
    spec = serial_spec()
    assert spec.new_codec().feed(b"21.5\r\n") == [b"21.5"]
    assert spec.promise == "at-most-once"
    assert (spec.baud_rate, spec.bits_per_byte, spec.silence_s, spec.label) == (9600, 10, None, "/dev/ttyX")


@pytest.mark.parametrize(
    ("framing", "stream"),
    [
        ("line", b"abc\n"),
        ({"type": "line", "delimiter": ";", "stripCr": False, "skipFirst": True}, b"x;abc;"),
        ({"type": "delimiter", "delimiter": r"\r\n"}, b"abc\r\n"),
        ({"type": "fixed", "length": 3}, b"abc"),
        ({"type": "lengthField", "stripHeader": True}, b"\0\3abc"),
        ({"type": "lengthField", "sync": "0xaa55", "width": 1, "stripHeader": True}, b"\xaa\x55\3abc"),
        ({"type": "startEnd", "start": 0x7E, "end": 0x7E, "escape": 0x7D, "xor": 32}, b"\x7eabc\x7e"),
        ({"type": "startEnd", "start": "$", "end": r"\r\n"}, b"$abc\r\n"),
        ("slip", b"abc\xc0"),
        ("cobs", b"\4abc\0"),
        ("raw", b"abc"),
    ],
)
def test_every_framing_can_be_named(framing: Any, stream: bytes) -> None:
    assert serial_spec(framing=framing).new_codec().feed(stream) == [b"abc"]


def test_idle_gap_is_the_silence() -> None:
    spec = serial_spec(framing={"type": "idleGap", "gap": "5ms"}, checksum="crc16-modbus")
    assert spec.silence_s == 0.005
    assert serial_spec(framing="idleGap").silence_s == 0.02


def test_frame_timeout() -> None:
    assert serial_spec(framing={"type": "fixed", "length": 8}).silence_s == 1
    assert serial_spec(framing={"type": "fixed", "length": 8}, frameTimeout="50ms").silence_s == 0.05
    assert serial_spec(framing={"type": "fixed", "length": 8}, frameTimeout="0").silence_s is None
    assert serial_spec(frameTimeout="3s").silence_s == 3


def test_a_full_queue_holds_the_sender_back_where_it_can_be() -> None:
    assert not serial_spec().blocks
    assert serial_spec(rtscts=True).blocks
    assert serial_spec(xonxoff=True).blocks
    assert not serial_spec(xonxoff=True, onFull="drop").blocks
    assert serial_spec(onFull="block").blocks


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"device": ""}, "give `device`"),
        ({"match": {"vid": "0403"}}, "not both"),
        ({"device": "", "match": {}}, "`match` is empty"),
        ({"device": "", "match": {"vid": "xyz"}}, "four hex digits"),
        ({"device": "", "match": {"pid": 70000}}, "four hex digits"),
        ({"stopBits": 3}, "1, 1.5 or 2"),
        ({"dataBits": 9}, "dataBits"),
        ({"rtscts": True, "rts": False}, "leave `rts` out"),
        ({"dsrdtr": True, "dtr": False}, "leave `dtr` out"),
        ({"rs485": {}, "rtscts": True}, "`rs485` switches"),
        ({"framing": "nmea"}, "framing"),
        ({"framing": {"type": "slip", "offset": 2}}, "framing `slip` has no key `offset`; it takes no further keys"),
        ({"framing": {"type": "fixed", "length": 2, "stripCr": True}}, "it takes `length`, `sync`"),
        ({"framing": "fixed"}, "framing `fixed` needs the key `length`"),
        ({"framing": "startEnd"}, "needs the key `start`"),
        ({"framing": "delimiter"}, "needs the key `delimiter`"),
        ({"framing": {"type": "line", "delimiter": r"\q"}}, "unknown escape"),
        ({"framing": {"type": "line", "delimiter": ""}}, "`delimiter` is empty"),
        ({"framing": {"type": "delimiter", "delimiter": 3338}}, "quoted hex"),
        ({"framing": {"type": "startEnd", "start": "a", "end": "ab"}}, "beginning of the other"),
        ({"framing": {"type": "startEnd", "start": "<", "end": ">", "xor": 32}}, "give `escape` too"),
        ({"framing": {"type": "startEnd", "start": "<", "end": ">", "escape": "<"}}, "must differ"),
        ({"framing": {"type": "startEnd", "start": "<<", "end": ">", "escape": "!"}}, "exactly one"),
        ({"framing": {"type": "startEnd", "start": 0, "end": 1, "escape": 3, "xor": 1}}, "would look like a mark"),
        ({"framing": {"type": "lengthField", "sync": "0xaa55", "offset": 1}}, "at least 2"),
        ({"framing": {"type": "lengthField", "offset": 1, "stripHeader": True}}, "leave it out"),
        ({"framing": {"type": "lengthField", "width": 3}}, "width"),
        ({"framing": {"type": "idleGap", "gap": "0"}}, "between 1ms and 60s"),
        ({"framing": {"type": "fixed", "length": 100}, "maxFrame": 99}, "raise `maxFrame`"),
        ({"framing": "raw", "checksum": "sum8"}, "no frames to check"),
        ({"framing": "raw", "frameTimeout": "1s"}, "no `frameTimeout`"),
        ({"frameTimeout": "-1s"}, "must not be negative"),
        ({"replyDelay": "5ms"}, "`replyDelay` means nothing without `reply: true`"),
        ({"reply": True, "replyDelimiter": ""}, "`replyDelimiter` is empty"),
        ({"reply": True, "writeTimeout": "0"}, "more than 0"),
    ],
)
def test_what_cannot_work_is_told_at_load(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=told.replace("(", r"\(")):
        serial_spec(**keys)


def test_a_match_says_what_it_looks_for() -> None:
    assert str(Match(vid="0403", serial_number="A9*")) == "usb:vid=0403,serial_number=A9*"


def test_a_file_says_where_and_survives_being_written_for_the_processor() -> None:
    written = """
metadata: {name: meter}
spec:
  handler: meter:handler
  runtime: python
  triggers:
    line:
      kind: serial
      attributes:
        match: {vid: "0403", serialNumber: "A9*"}
        BAUDRATE: 115200
        framing: {type: startEnd, start: 0x7e, end: 0x7e, escape: 0x7d, xor: 0x20}
        frameTimeout: 50ms
        rs485: {delayBeforeTx: 1ms}
"""
    function = load_text(written, "meter.yaml").function
    spec = function.spec.triggers["line"]
    assert isinstance(spec, SerialSpec)
    assert (spec.baud_rate, spec.silence_s, spec.label) == (115200, 0.05, "usb:vid=0403,serial_number=A9*")
    assert spec.new_codec().encode(b"\x7e") == b"\x7e\x7d\x5e\x7e"
    again = read_generated(dump_processor_yaml(function), "processor.yaml")
    assert again is not None
    assert again.spec.triggers["line"] == spec
    with pytest.raises(
        SpecError, match=r"meter.yaml:12:18: .*framing `startEnd` has no key `offset`; it takes `start`"
    ):
        load_text(written.replace("xor: 0x20", "offset: 2"), "meter.yaml")
