"""Every framing: what it cuts, that splits never matter, how it finds back, and that it stays small and quick."""

import random
import time
from collections.abc import Callable

import pytest

from agent.triggers.serial.framing.bracketed import Bracketed
from agent.triggers.serial.framing.checksum import checksum
from agent.triggers.serial.framing.codec import Codec, Rules
from agent.triggers.serial.framing.delimited import Cobs, Delimited, Slip, cobs_decode, cobs_encode
from agent.triggers.serial.framing.sized import Fixed, LengthField
from agent.triggers.serial.framing.unmarked import IdleGap, Raw

RULES = Rules(max_frame=64)
CRC = Rules(max_frame=64, checksum=checksum("crc16-modbus"))

Make = Callable[[int], Codec]
STREAMS: dict[str, Make] = {
    "line": lambda most: Delimited(Rules(most), b"\n", strip_cr=True),
    "delimiter": lambda most: Delimited(Rules(most), b"\r\n;", keep=True),
    "repeating delimiter": lambda most: Delimited(Rules(most), b"aab"),
    "fixed": lambda most: Fixed(Rules(most), 7),
    "fixed, sync": lambda most: Fixed(Rules(most), 7, b"\xaa\xaa\x55"),
    "length": lambda most: LengthField(Rules(most), width=1),
    "length, sync": lambda most: LengthField(
        Rules(most, checksum("crc16-modbus")), offset=2, sync=b"\xaa\x55", endian="little"
    ),
    "STX ETX": lambda most: Bracketed(Rules(most), b"\x02", b"\x03"),
    "NMEA": lambda most: Bracketed(Rules(most, checksum("xor")), b"$", b"\r\n"),
    "HDLC": lambda most: Bracketed(Rules(most, checksum("crc16-x25")), b"\x7e", b"\x7e", escape=b"\x7d", xor=0x20),
    "DLE": lambda most: Bracketed(Rules(most), b"\x02", b"\x03", escape=b"\x10"),
    "SLIP": lambda most: Slip(Rules(most)),
    "COBS": lambda most: Cobs(Rules(most)),
}
PARTIAL_ALWAYS_DROPPED = {name: make for name, make in STREAMS.items() if "fixed" not in name}


def splits(data: bytes, chance: random.Random) -> list[bytes]:
    """`data` in pieces of random length."""
    pieces, at = [], 0
    while at < len(data):
        step = chance.choice((1, 1, 2, 3, 7, 40))
        pieces.append(data[at : at + step])
        at += step
    return pieces


def alphabet(chance: random.Random, length: int) -> bytes:
    """Bytes that are special to one framing or another, more often than not."""
    return bytes(
        chance.choice(b"\x00\x01\x02\x03\x07\x10\r\n;ab$*~\x7d\x5d\x5e\xaa\x55\xc0\xdb\xdc\xdd\xff")
        for _ in range(length)
    )


@pytest.mark.parametrize("name", STREAMS)
def test_splits_change_nothing(name: str) -> None:
    """The same noise in one piece and in many gives the same frames and the same errors."""
    chance = random.Random(name)
    for _ in range(60):
        data = alphabet(chance, chance.randint(0, 600))
        whole, pieces = STREAMS[name](64), STREAMS[name](64)
        expected = whole.feed(data)
        found = [frame for piece in splits(data, chance) for frame in pieces.feed(piece)]
        assert found == expected
        for what in ("frames_bad", "frames_too_long"):
            assert pieces.counts[what] == whole.counts[what], what


def body_for(name: str, chance: random.Random) -> bytes:
    """A body that this framing can carry."""
    if name == "fixed":
        return chance.randbytes(7)
    if name == "fixed, sync":
        return b"\xaa\xaa\x55" + chance.randbytes(4)
    if name == "length":
        body = chance.randbytes(chance.randint(1, 60))
        return bytes([len(body)]) + body
    if name == "length, sync":
        body = chance.randbytes(chance.randint(1, 50))
        return b"\xaa\x55" + (len(body) + 2).to_bytes(2, "little") + body
    if name in ("HDLC", "DLE", "SLIP", "COBS"):
        return alphabet(chance, chance.randint(1, 60))
    text = bytes(chance.choice(b"0123456789,.-") for _ in range(chance.randint(1, 50)))
    return text + b"\r\n;" if name == "delimiter" else text


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_encoded_is_decoded(name: str) -> None:
    chance = random.Random(name)
    codec = STREAMS[name](64)
    bodies = [body_for(name, chance) for _ in range(200)]
    stream = b"".join(map(codec.encode, bodies))
    assert [frame for piece in splits(stream, chance) for frame in codec.feed(piece)] == bodies
    assert not +codec.counts
    assert not codec.pending


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in ("fixed", "length")])
def test_finds_back_after_noise(name: str) -> None:
    """After garbage, all but the frame that the garbage ran into come through."""
    chance = random.Random(name)
    for _ in range(20):
        codec = STREAMS[name](64)
        codec.feed(alphabet(chance, chance.randint(1, 300)))
        bodies = [body_for(name, chance) for _ in range(12)]
        found = codec.feed(b"".join(map(codec.encode, bodies)))
        # A length that the garbage made up may swallow up to `max_frame` bytes: some more frames.
        lost = 6 if name in ("length, sync", "fixed, sync") else 1
        assert found[-(len(bodies) - lost) :] == bodies[lost:]


@pytest.mark.parametrize("name", PARTIAL_ALWAYS_DROPPED)
def test_a_partial_frame_is_dropped_once_by_silence(name: str) -> None:
    chance = random.Random(name)
    codec = STREAMS[name](64)
    body = body_for(name, chance)
    assert codec.feed(codec.encode(body)[:-1]) == []
    assert codec.pending
    assert codec.silence() == []
    assert codec.counts["frames_partial"] == 1
    assert not codec.pending
    codec.silence()
    assert codec.counts["frames_partial"] == 1
    assert codec.feed(codec.encode(body)) == [body]


@pytest.mark.parametrize("name", STREAMS)
def test_memory_is_bounded(name: str) -> None:
    """A sender that never ends its frame is cut off, whatever it sends."""
    for byte in (b"\x00", b"\x01", b"a", b"\x10", b"\x7d", b"\xaa", b"\xdb", b"\xff"):
        codec = STREAMS[name](64)
        for _ in range(200):
            codec.feed(byte * 50)
            held = sum(len(value) for value in vars(codec).values() if isinstance(value, bytearray | bytes))
            assert held < 4 * RULES.max_frame


@pytest.mark.parametrize("name", STREAMS)
def test_time_is_linear(name: str) -> None:
    """A quarter of a megabyte in small pieces and one frame, of bytes that make one framing or another work hard."""
    for byte in (b"\x00", b"\n", b"\x7e", b"\xaa", b"a"):
        codec = STREAMS[name](1 << 20)
        started = time.process_time()
        for _ in range(2000):
            codec.feed(byte * 128)
        # Quadratic would be minutes. The bound is loose: this tells a shape from another, it measures no speed.
        assert time.process_time() - started < 5


def test_a_line_loses_one_carriage_return_and_empty_lines_are_none() -> None:
    codec = Delimited(RULES, b"\n", strip_cr=True)
    assert codec.feed(b"a\r\n\r\n\nb\r\r\nc") == [b"a", b"b\r"]
    assert codec.feed(b"\n") == [b"c"]


def test_a_line_of_just_the_limit_passes_and_one_more_does_not() -> None:
    for end in (b"\n", b"\r\n"):
        codec = Delimited(RULES, b"\n", strip_cr=True)
        assert codec.feed(b"x" * 64 + end) == [b"x" * 64]
        assert codec.feed(b"x" * 65 + end + b"next\n") == [b"next"]
        assert codec.counts == {"frames_too_long": 1}


def test_a_line_without_end_is_counted_once_and_the_next_is_found() -> None:
    codec = Delimited(RULES, b"\n")
    for _ in range(100):
        assert codec.feed(b"x" * 100) == []
    assert codec.feed(b"xx\nnext\n") == [b"next"]
    assert codec.counts == {"frames_too_long": 1}


def test_the_first_half_line_can_be_skipped_after_every_opening() -> None:
    codec = Delimited(RULES, b"\n", skip_first=True)
    assert codec.feed(b"34\n12\n5") == [b"12"]
    codec.restart()
    assert codec.feed(b"6\n7\n") == [b"7"]
    assert codec.counts == {"frames_partial": 1}


def test_a_reply_that_ends_with_a_kept_delimiter_does_not_get_two() -> None:
    codec = Delimited(RULES, b";", keep=True)
    assert codec.encode(b"a;") == codec.encode(b"a") == b"a;"
    assert codec.feed(b"a;b;") == [b"a;", b"b;"]


def test_checksum_is_taken_off_unless_it_is_to_be_kept() -> None:
    sentence = b"$GPGLL,1*%02X" % 0
    check = checksum("xor")
    assert check is not None
    sentence = check.seal(b"$GPGLL,1")
    assert Delimited(Rules(64, check), b"\n").feed(sentence + b"\n$GPGLL,2*00\n") == [b"$GPGLL,1"]
    keeping = Delimited(Rules(64, check, keep_checksum=True), b"\n")
    assert keeping.feed(sentence + b"\n$GPGLL,2*00\n") == [sentence]
    assert keeping.counts == {"frames_bad": 1}


def test_length_field_forms() -> None:
    payload = b"hello"
    after = LengthField(RULES, offset=1, width=2, strip_header=False)
    assert after.feed(b"T\0\5hello") == [b"T\0\5hello"]
    whole = LengthField(RULES, width=1, includes_header=True, strip_header=True)
    assert whole.feed(b"\6hello") == [payload]
    assert whole.encode(payload) == b"\6hello"
    adjusted = LengthField(RULES, width=4, endian="little", adjustment=-4, strip_header=True)
    assert adjusted.feed(b"\x09\0\0\0hello") == [payload]
    assert adjusted.encode(payload) == b"\x09\0\0\0hello"
    synced = LengthField(CRC, offset=1, width=1, sync=b"\xaa", strip_header=True)
    assert synced.feed(synced.encode(payload)) == [payload]


def test_a_length_that_cannot_be_costs_a_byte_not_the_stream() -> None:
    codec = LengthField(RULES, offset=2, width=2, sync=b"\xaa\x55")
    good = codec.encode(b"\0\0\0\0good")
    assert codec.feed(b"\xaa\x55\xff\xffjunk" + good + good) == [good, good]
    assert codec.counts == {"frames_too_long": 1, "bytes_skipped": 8}
    negative = LengthField(RULES, width=1, adjustment=-5, sync=b"", includes_header=False)
    assert negative.feed(b"\x01\x09hell") == [b"\x09hell"]
    assert negative.counts == {"frames_bad": 1, "bytes_skipped": 1}


def test_replies_that_a_framing_cannot_carry() -> None:
    for codec, body in (
        (Fixed(RULES, 4), b"five!"),
        (LengthField(RULES, width=1), b""),
        (LengthField(RULES, width=1), b"x" * 300),
        (LengthField(RULES, width=1, adjustment=9), b"x"),
        (Bracketed(RULES, b"\x02", b"\x03"), b"a\x03"),
    ):
        with pytest.raises(ValueError, match="reply"):
            codec.encode(body)


def test_a_start_inside_a_frame_begins_again() -> None:
    codec = Bracketed(RULES, b"$", b"\r\n")
    assert codec.feed(b"noise$half$whole\r\nnoise\r\n$next\r\n") == [b"whole", b"next"]
    assert codec.counts == {"frames_bad": 1, "bytes_skipped": 10}


def test_hdlc_escapes_shares_flags_and_aborts() -> None:
    codec = Bracketed(RULES, b"\x7e", b"\x7e", escape=b"\x7d", xor=0x20)
    assert codec.encode(b"\x7e\x7d!") == b"\x7e\x7d\x5e\x7d\x5d!\x7e"
    assert codec.feed(b"\x7ea\x7eb\x7e\x7e\x7ecut\x7d\x7ed\x7d\x5e\x7e") == [b"a", b"b", b"d\x7e"]
    assert codec.counts == {"frames_bad": 1}


def test_an_aborted_frame_ends_unless_its_mark_begins_another() -> None:
    codec = Bracketed(RULES, b"\x02", b"\x03", escape=b"\x1b", xor=0x40)
    assert codec.feed(b"\x02cut\x1b\x03noise\x03\x02cut\x1b\x02whole\x03") == [b"whole"]
    assert codec.counts == {"frames_bad": 2, "bytes_skipped": 5}


def test_an_escaped_mark_is_content_and_a_too_long_frame_ends_at_the_next_start() -> None:
    codec = Bracketed(RULES, b"\x02", b"\x03", escape=b"\x10")
    assert codec.feed(b"\x02a\x10\x03\x10\x10\x10\x02\x03") == [b"a\x03\x10\x02"]
    assert codec.feed(b"\x02" + b"x" * 65 + b"\x03\x02ok\x03") == [b"ok"]
    assert codec.counts["frames_too_long"] == 1


def test_slip_of_the_rfc_and_bad_escapes() -> None:
    codec = Slip(RULES)
    assert codec.encode(b"\xc0\xdb\xdc") == b"\xc0\xdb\xdc\xdb\xdd\xdc\xc0"
    assert codec.feed(b"\xc0\xdb\xdd\xdc\xc0a\xdbx\xc0b\xdb\xc0c\xc0") == [b"\xdb\xdc", b"c"]
    assert codec.counts == {"frames_bad": 2}
    assert codec.feed(codec.encode(b"\xc0" * 64)) == [b"\xc0" * 64]
    assert codec.feed(codec.encode(b"\xc0" * 65)) == []
    assert codec.counts["frames_too_long"] == 1


@pytest.mark.parametrize(
    ("body", "stuffed"),
    [
        (b"\0", b"\1\1"),
        (b"\0\0", b"\1\1\1"),
        (b"\x11\x22\0\x33", b"\3\x11\x22\2\x33"),
        (b"\x11\0\0\0", b"\2\x11\1\1\1"),
        (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255))),
        (b"\0" + bytes(range(1, 255)), b"\1\xff" + bytes(range(1, 255))),
        (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\2\xff"),
    ],
)
def test_cobs_examples_of_its_authors(body: bytes, stuffed: bytes) -> None:
    assert cobs_encode(body) == stuffed
    assert cobs_decode(stuffed) == body


def test_cobs_of_every_length_around_a_block() -> None:
    chance = random.Random(5)
    for length in [*range(1, 20), *range(250, 262), 507, 508, 509, 1000]:
        for body in (b"\0" * length, b"x" * length, chance.randbytes(length), b"x" * (length - 1) + b"\0"):
            assert b"\0" not in cobs_encode(body)
            assert cobs_decode(cobs_encode(body)) == body


def test_cobs_cut_short_is_bad() -> None:
    codec = Cobs(RULES)
    assert codec.feed(b"\5ab\0\3ab\0") == [b"ab"]
    assert codec.counts == {"frames_bad": 1}


def test_idle_gap_gives_what_stood_between_silences() -> None:
    codec = IdleGap(CRC)
    frame = codec.encode(b"\x01\x03")
    assert codec.feed(frame[:2]) == codec.feed(frame[2:]) == []
    assert codec.silence() == [b"\x01\x03"]
    codec.feed(b"x" * 65)
    assert codec.pending
    codec.feed(frame)
    assert codec.silence() == []
    assert codec.counts == {"frames_too_long": 1}
    codec.feed(frame)
    assert codec.silence() == [b"\x01\x03"]
    codec.feed(b"lost with the port")
    codec.restart()
    assert codec.counts["frames_partial"] == 1


def test_raw_gives_pieces_no_longer_than_the_limit() -> None:
    codec = Raw(RULES)
    assert codec.feed(b"x" * 130) == [b"x" * 64, b"x" * 64, b"x" * 2]
    assert codec.encode(b"abc") == b"abc"
    assert not codec.pending
