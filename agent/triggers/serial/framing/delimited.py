"""Frames with a border byte between them: lines, delimiters, SLIP (RFC 1055), COBS.

Resynchronise rule: at the next border. A frame that grows too long is dropped up to there and counted once.
"""

from __future__ import annotations

from agent.triggers.serial.framing.codec import Codec, Rules


class Delimited(Codec):
    """Everything up to `delimiter`, which is one or more bytes.

    `keep`: the delimiter stays at the end of the frame. `strip_cr`: one carriage return before it does not.
    `skip_first`: what comes before the first delimiter is dropped: after opening it may be half a frame.
    """

    def __init__(
        self,
        rules: Rules,
        delimiter: bytes,
        *,
        keep: bool = False,
        strip_cr: bool = False,
        skip_first: bool = False,
        encoded_limit: int = 0,
    ) -> None:
        super().__init__(rules)
        self._delimiter = delimiter
        self._suffix = delimiter if keep else b""
        self._strip_cr = strip_cr
        self._skip_first = skip_first
        # One more for the carriage return that is not part of the frame.
        self._limit = encoded_limit or rules.max_frame + strip_cr
        self._buffer = bytearray()
        self._skipping = skip_first

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def restart(self) -> None:
        super().restart()
        self._skipping = self._skip_first

    def _forget(self) -> bool:
        partial = bool(self._buffer) and not self._skipping
        self._buffer.clear()
        return partial

    def _take(self, data: bytes) -> None:
        buffer, width = self._buffer, len(self._delimiter)
        # A delimiter may have begun in the bytes before; nothing earlier is looked at twice.
        start, scan = 0, max(0, len(buffer) - width + 1)
        buffer += data
        while (end := buffer.find(self._delimiter, scan)) >= 0:
            self._cut(start, end)
            start = scan = end + width
        del buffer[:start]
        if self._skipping or len(buffer) > self._limit + width - 1:
            self._skip()

    def _skip(self) -> None:
        """Go on without keeping anything but a delimiter that may have begun."""
        if not self._skipping:
            self.counts["frames_too_long"] += 1
            self._skipping = True
        del self._buffer[: max(0, len(self._buffer) - len(self._delimiter) + 1)]

    def _cut(self, start: int, end: int) -> None:
        if self._skipping:
            self._skipping = False
        elif end - start > self._limit:
            self.counts["frames_too_long"] += 1
        else:
            self._decode(bytes(self._buffer[start:end]))

    def _decode(self, content: bytes) -> None:
        if self._strip_cr and content.endswith(b"\r"):
            content = content[:-1]
        self._finish(content, suffix=self._suffix)

    def _wrap(self, content: bytes) -> bytes:
        return content if self._suffix and content.endswith(self._suffix) else content + self._delimiter


class Slip(Delimited):
    """RFC 1055: END (C0) after every frame; C0 and DB inside are written DB DC and DB DD."""

    END, ESC, ESC_END, ESC_ESC = b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd"

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules, self.END, encoded_limit=2 * rules.max_frame)

    def _decode(self, content: bytes) -> None:
        if content.count(self.ESC) != content.count(self.ESC_END) + content.count(self.ESC_ESC):
            self.counts["frames_bad"] += 1
            return
        # In this order an escape is never read twice: the first replacement makes no new DB.
        self._finish(content.replace(self.ESC_END, self.END).replace(self.ESC_ESC, self.ESC))

    def _wrap(self, content: bytes) -> bytes:
        # The leading END ends whatever noise came before, as the RFC advises.
        escaped = content.replace(self.ESC, self.ESC_ESC).replace(self.END, self.ESC_END)
        return self.END + escaped + self.END


class Cobs(Delimited):
    """Consistent overhead byte stuffing: no zero inside a frame, a zero after it."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules, b"\0", encoded_limit=rules.max_frame + rules.max_frame // 254 + 1)

    def _decode(self, content: bytes) -> None:
        body = cobs_decode(content)
        if body is None:
            self.counts["frames_bad"] += 1
        else:
            self._finish(body)

    def _wrap(self, content: bytes) -> bytes:
        return cobs_encode(content) + b"\0"


def cobs_decode(content: bytes) -> bytes | None:
    """The bytes that `content` (without zeros) stands for; None when a block is cut short."""
    out, at = bytearray(), 0
    while at < len(content):
        code = content[at]
        block = content[at + 1 : at + code]
        if len(block) != code - 1:
            return None
        out += block
        at += code
        if code < 255 and at < len(content):
            out.append(0)
    return bytes(out)


def cobs_encode(body: bytes) -> bytes:
    """`body` without zeros, at most one byte in 254 longer, plus one."""
    out = bytearray()
    pieces = body.split(b"\0")
    for number, piece in enumerate(pieces, 1):
        while len(piece) >= 254:
            out += b"\xff" + piece[:254]
            piece = piece[254:]
            if not piece and number == len(pieces):
                return bytes(out)
        out.append(len(piece) + 1)
        out += piece
    return bytes(out)
