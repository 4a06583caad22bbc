"""The `framing` key: which framing, and the keys that go with it. Checked when the file is read.

Flow: function.yaml -> Framing -> `codec` makes the decoder. Promise: a key that the chosen framing does not use is an
error, never ignored, because a misplaced one would cut a stream at the wrong bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from agent.model.spec import Duration, Spec
from agent.triggers.serial.framing.bracketed import Bracketed
from agent.triggers.serial.framing.codec import Codec, Rules
from agent.triggers.serial.framing.delimited import Cobs, Delimited, Slip
from agent.triggers.serial.framing.octets import Octets, octets, one_octet
from agent.triggers.serial.framing.sized import Fixed, LengthField
from agent.triggers.serial.framing.unmarked import IdleGap, Raw

FramingType = Literal["line", "delimiter", "fixed", "lengthField", "startEnd", "slip", "cobs", "idleGap", "raw"]

_KEYS: dict[FramingType, tuple[str, ...]] = {
    "line": ("delimiter", "strip_cr", "skip_first"),
    "delimiter": ("delimiter", "keep_delimiter", "skip_first"),
    "fixed": ("length", "sync"),
    "lengthField": ("offset", "width", "endian", "adjustment", "includes_header", "sync", "strip_header"),
    "startEnd": ("start", "end", "escape", "xor"),
    "slip": (),
    "cobs": (),
    "idleGap": ("gap",),
    "raw": (),
}
_REQUIRED: dict[FramingType, tuple[str, ...]] = {
    "delimiter": ("delimiter",),
    "fixed": ("length",),
    "startEnd": ("start", "end"),
}

Length = Annotated[int, Meta(ge=1, le=16 << 20)]
"""Bytes of a frame."""


class Framing(Spec, frozen=True, kw_only=True):
    """`framing: {type: ..., ...}`. None: not given. `framing: slip` is short for `framing: {type: slip}`."""

    type: FramingType = "line"
    delimiter: Octets | None = None  # line: default \n
    strip_cr: bool | None = None  # default true
    keep_delimiter: bool | None = None  # default false
    skip_first: bool | None = None  # default false
    length: Length | None = None
    offset: Annotated[int, Meta(ge=0, le=65535)] | None = None  # default: right after the sync bytes
    width: Literal[1, 2, 4] | None = None  # default 2
    endian: Literal["big", "little"] | None = None  # default big
    adjustment: Annotated[int, Meta(ge=-65536, le=65536)] | None = None  # default 0
    includes_header: bool | None = None  # default false
    strip_header: bool | None = None  # default false
    sync: Octets | None = None
    start: Octets | None = None
    end: Octets | None = None
    escape: Octets | None = None
    xor: Annotated[int, Meta(ge=1, le=255)] | None = None
    gap: Duration | None = None  # default 20 ms

    def __post_init__(self) -> None:
        self._check_keys()
        for field in ("delimiter", "sync", "start", "end"):
            self.bytes_of(field)
        if self.type == "startEnd":
            self._check_marks()
        if self.type == "lengthField":
            self._check_header()
        if self.gap is not None and not 0.001 <= self.gap <= 60:
            raise ValueError("`gap` must be between 1ms and 60s")

    def bytes_of(self, field: str) -> bytes:
        """The bytes that this key's text stands for; none where it is not given."""
        value: Octets | None = getattr(self, field)
        return b"" if value is None else octets(value, _key(field))

    @property
    def silence_s(self) -> float | None:
        """After how long a silence an incomplete frame is over, where `frameTimeout` is not given. None: never."""
        if self.type == "idleGap":
            return 0.02 if self.gap is None else float(self.gap)
        return 1.0 if self.type in ("fixed", "lengthField") else None

    def _check_keys(self) -> None:
        allowed = _KEYS[self.type]
        known = ", ".join(f"`{_key(name)}`" for name in allowed) or "no further keys"
        for name in self.__struct_fields__[1:]:
            if getattr(self, name) is not None and name not in allowed:
                raise ValueError(f"framing `{self.type}` has no key `{_key(name)}`; it takes {known}")
        for name in _REQUIRED.get(self.type, ()):
            if getattr(self, name) is None:
                raise ValueError(f"framing `{self.type}` needs the key `{_key(name)}`")

    def _check_marks(self) -> None:
        start, end = self.bytes_of("start"), self.bytes_of("end")
        if start != end and (start.startswith(end) or end.startswith(start)):
            raise ValueError("one of `start` and `end` is the beginning of the other; make them differ, or the same")
        if self.escape is None:
            if self.xor is not None:
                raise ValueError("`xor` changes the byte after an escape; give `escape` too, or leave `xor` out")
            return
        escape = one_octet(self.escape, "escape")
        marks = {escape, one_octet(self.start or 0, "start"), one_octet(self.end or 0, "end")}
        if escape in (start[0], end[0]):
            raise ValueError("`escape` must differ from `start` and `end`")
        if self.xor is not None and marks & {mark ^ self.xor for mark in marks}:
            raise ValueError("with this `xor` an escaped byte would look like a mark; HDLC uses 0x20 (32)")

    def _check_header(self) -> None:
        sync = len(self.bytes_of("sync"))
        if self.offset is not None and self.offset < sync:
            raise ValueError(f"`offset` counts from the start of the frame, so it is at least {sync}, after the `sync`")
        if self.strip_header and self.offset not in (None, sync):
            raise ValueError("`stripHeader` would lose what stands between `sync` and the length; leave it out")


def codec(framing: Framing, rules: Rules) -> Codec:
    """The decoder and encoder for `framing`, fresh."""
    match framing.type:
        case "line":
            return Delimited(
                rules,
                framing.bytes_of("delimiter") or b"\n",
                strip_cr=framing.strip_cr is not False,
                skip_first=bool(framing.skip_first),
            )
        case "delimiter":
            return Delimited(
                rules,
                framing.bytes_of("delimiter"),
                keep=bool(framing.keep_delimiter),
                skip_first=bool(framing.skip_first),
            )
        case "fixed":
            return Fixed(rules, framing.length or 0, framing.bytes_of("sync"))
        case "lengthField":
            return _length_field(framing, rules)
        case "startEnd":
            marks = (framing.bytes_of("start"), framing.bytes_of("end"))
            return Bracketed(rules, *marks, escape=framing.bytes_of("escape"), xor=framing.xor or 0)
        case "slip":
            return Slip(rules)
        case "cobs":
            return Cobs(rules)
        case "idleGap":
            return IdleGap(rules)
        case "raw":
            return Raw(rules)


def _length_field(framing: Framing, rules: Rules) -> LengthField:
    sync = framing.bytes_of("sync")
    return LengthField(
        rules,
        offset=len(sync) if framing.offset is None else framing.offset,
        width=framing.width or 2,
        endian=framing.endian or "big",
        adjustment=framing.adjustment or 0,
        includes_header=bool(framing.includes_header),
        sync=sync,
        strip_header=bool(framing.strip_header),
    )


def _key(field: str) -> str:
    """The name of a field as it is written in files."""
    first, *rest = field.split("_")
    return first + "".join(map(str.title, rest))
