"""The keys of a serial trigger, checked when the file is read: no device is opened here.

Flow: function.yaml -> SerialSpec -> `device` finds the port, `port` opens it, `framing` cuts its bytes, `trigger` runs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from agent.model.spec import Duration, Spec, TriggerSpec
from agent.triggers.serial.framing.checksum import ChecksumName, checksum
from agent.triggers.serial.framing.codec import Codec, Rules
from agent.triggers.serial.framing.octets import Octets, octets
from agent.triggers.serial.framing.spec import Framing, FramingType, Length, codec

UsbId = int | str
"""A number, or hex digits as text: `"0403"` and `0x0403` are the same."""


class Match(Spec, frozen=True, kw_only=True):
    """A USB adapter by what it says of itself, whatever name it gets. Texts may hold `*`, `?` and `[...]`."""

    vid: UsbId | None = None
    pid: UsbId | None = None
    serial_number: str | None = None
    product: str | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError("`match` is empty; give one of `vid`, `pid`, `serialNumber`, `product`")
        usb_id(self.vid, "vid")
        usb_id(self.pid, "pid")

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return "usb:" + ",".join(f"{name}={value}" for name, value in given.items())


class Rs485(Spec, frozen=True, kw_only=True):
    """The driver switches the transmitter with RTS, where it can (TIOCSRS485)."""

    rts_level_for_tx: bool = True
    rts_level_for_rx: bool = False
    loopback: bool = False
    delay_before_tx: Duration | None = None
    delay_before_rx: Duration | None = None


class SerialSpec(TriggerSpec, frozen=True, kw_only=True):
    """One port and how its bytes become events. README.md says what every key means."""

    default_order_key: ClassVar[str] = "path"

    device: str = ""
    match: Match | None = None
    baud_rate: Annotated[int, Meta(ge=50, le=20_000_000)] = 9600
    data_bits: Literal[5, 6, 7, 8] = 8
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stop_bits: float = 1
    xonxoff: bool = False
    rtscts: bool = False
    dsrdtr: bool = False
    dtr: bool | None = None  # None: on
    rts: bool | None = None  # None: on
    hangup_on_close: bool = False
    low_latency: bool = True
    rs485: Rs485 | None = None
    framing: Framing | FramingType = "line"
    max_frame: Length = 65536
    frame_timeout: Duration | None = None
    checksum: ChecksumName = "none"
    keep_checksum: bool = False
    content_type: str = ""
    on_full: Literal["block", "drop"] | None = None
    reply: bool = False
    reply_delimiter: Octets | None = None
    reply_delay: Duration | None = None
    write_timeout: Duration = Duration(5.0)

    def __post_init__(self) -> None:
        if bool(self.device) == (self.match is not None):
            raise ValueError("give `device`, such as /dev/serial/by-id/usb-..., or `match`: one of them, not both")
        self._check_line()
        self._check_framing()
        self._check_reply()

    @property
    def label(self) -> str:
        """The source as the operator wrote it."""
        return self.device or str(self.match)

    @property
    def frame(self) -> Framing:
        return Framing(type=self.framing) if isinstance(self.framing, str) else self.framing

    @property
    def silence_s(self) -> float | None:
        """After how many seconds without a byte an incomplete frame is over; None: never."""
        if self.frame_timeout is None:
            return self.frame.silence_s
        return float(self.frame_timeout) or None

    @property
    def blocks(self) -> bool:
        """A full queue stops reading (True) or drops and counts. With flow control the sender can be held back."""
        if self.on_full is None:
            return self.rtscts or self.xonxoff
        return self.on_full == "block"

    @property
    def bits_per_byte(self) -> float:
        """On the line: start bit, data, parity, stop."""
        return 1 + self.data_bits + (self.parity != "none") + self.stop_bits

    def new_codec(self) -> Codec:
        return codec(self.frame, Rules(self.max_frame, checksum(self.checksum), self.keep_checksum))

    def _check_line(self) -> None:
        if self.stop_bits not in (1, 1.5, 2):
            raise ValueError("`stopBits` must be 1, 1.5 or 2")
        if self.rtscts and self.rts is not None:
            raise ValueError("`rtscts` lets the driver set RTS; leave `rts` out")
        if self.dsrdtr and self.dtr is not None:
            raise ValueError("`dsrdtr` leaves DTR to the driver; leave `dtr` out")
        if self.rs485 is not None and (self.rtscts or self.rts is not None):
            raise ValueError("`rs485` switches the transmitter with RTS; leave `rtscts` and `rts` out")

    def _check_framing(self) -> None:
        frame = self.frame
        if frame.type == "raw" and self.checksum != "none":
            raise ValueError("framing `raw` has no frames to check; leave `checksum` out or choose another framing")
        if frame.type in ("raw", "idleGap") and self.frame_timeout is not None:
            raise ValueError(f"framing `{frame.type}` takes no `frameTimeout`; idleGap has `gap`")
        if self.frame_timeout is not None and self.frame_timeout < 0:
            raise ValueError("`frameTimeout` must not be negative; 0 turns it off")
        if frame.length is not None and frame.length > self.max_frame:
            raise ValueError(
                f"`framing.length` is {frame.length}, more than `maxFrame` {self.max_frame}; raise `maxFrame`"
            )

    def _check_reply(self) -> None:
        for name, value in (("replyDelimiter", self.reply_delimiter), ("replyDelay", self.reply_delay)):
            if value is not None and not self.reply:
                raise ValueError(f"`{name}` means nothing without `reply: true`; add that, or leave it out")
        if self.reply_delimiter is not None:
            octets(self.reply_delimiter, "replyDelimiter")
        if (self.reply_delay or 0) < 0:
            raise ValueError("`replyDelay` must not be negative")
        if self.write_timeout <= 0:
            raise ValueError("`writeTimeout` must be more than 0")


def usb_id(value: UsbId | None, key: str) -> int | None:
    """The number that a vendor or product id stands for. Raises ValueError."""
    try:
        number = int(value, 16) if isinstance(value, str) else value
    except ValueError:
        number = -1
    if number is not None and not 0 <= number <= 0xFFFF:
        raise ValueError(f"`{key}` is {value!r}; write four hex digits in quotes, such as '0403'")
    return number
