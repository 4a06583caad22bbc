"""Outcomes as bytes: one complete response each, ready for one write.

Flow: dispatcher -> Outcome -> connection -> [this] -> socket. Promise: whatever a handler returns, exactly one well-
formed response comes out. Headers that decide where a message ends belong to this module alone; a name or value that
could break out of its line is dropped and counted.

Almost every response differs from the one before only in its body, so everything up to the length is kept ready, per
status and content type, for as long as the date in it is true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from agent.model.event import Outcome, Result
from agent.triggers.http.request import PLAIN, Traits

SERVER = b"headrace"
DEFAULT_CONTENT_TYPE = "text/plain; charset=utf-8"
LOGS_LIMIT = 4096  # bytes of X-Nuclio-Logs from which on it is left out, as in nuclio
READY_LIMIT = 256  # kept beginnings of responses and kept header lines

OURS = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-nuclio-filestream-delete-after-send",
        "x-nuclio-filestream-path",
    ]
)
"""Names a handler cannot set: they frame the message, or are set by us."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_JSON = "application/json"


def error_body(text: str) -> bytes:
    """How every error of ours looks: JSON with the one key `error`."""
    return json.dumps({"error": text}).encode()


def bodiless(status: int) -> bool:
    """Such a response ends with its headers and has no length."""
    return status in (204, 304)


class Encoder:
    """Makes responses. One per trigger; `refresh` tells it the time."""

    __slots__ = ("_beginnings", "_common", "_count", "_lines", "_second")

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._beginnings: dict[tuple[int, str], bytes] = {}
        self._lines: dict[tuple[str, str], bytes] = {}
        self._second = -1
        self._common = b""

    def refresh(self, now_s: float) -> None:
        """Set the Date of the responses from now on. `now_s`: wall clock."""
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._common = b"\r\nServer: %b\r\nDate: %b\r\n" % (SERVER, formatdate(second, usegmt=True).encode())
            self._beginnings.clear()

    def plain(self, status: int, content_type: str, body: bytes) -> bytes:
        """The short path: no header of the handler's, connection kept, HTTP/1.1, a body."""
        beginning = self._beginnings.get((status, content_type))
        if beginning is None:
            if bodiless(status) or not 200 <= status <= 599:
                return self.full(status, content_type, body)
            beginning = self._begin(status, content_type)
        return b"%b%d\r\n\r\n%b" % (beginning, len(body), body)

    def full(
        self,
        status: int,
        content_type: str,
        body: bytes,
        traits: Traits = PLAIN,
        *,
        headers: Iterable[tuple[str, str]] = (),
        more: bytes = b"",
        close: bool = False,
        length: int | None = None,
    ) -> bytes:
        """Any response to a request with these traits. `more`: finished header lines. `length`: of a body that follows
        separately (then `body` is empty). `close`: the connection ends, also when the client did not ask for it.
        """
        if not 200 <= status <= 599:
            status, content_type, headers = 500, _JSON, ()
            body = error_body("the handler answered with a status that is no final HTTP status (200 to 599)")
            self._count("statuses_refused")
        extra = traits.extra + more
        lines = self.header_lines(headers, cors=b"Access-Control-" in extra)
        if close or traits.close:
            lines += b"Connection: close\r\n"
        elif traits.http10:
            lines += b"Connection: keep-alive\r\n"
        if bodiless(status):
            return b"%b%b%b\r\n" % (self._status_line(status), extra, lines)
        size = len(body) if length is None else length
        beginning = self._begin(status, content_type or _own_content_type(headers))
        return b"%b%d\r\n%b%b\r\n%b" % (beginning, size, extra, lines, b"" if traits.head else body)

    def header_lines(self, headers: Iterable[tuple[str, str]], *, cors: bool = False) -> bytes:
        """The handler's headers that may go out. With `cors`, its own Access-Control headers do not."""
        lines = b""
        for item in headers:
            line = self._lines.get(item)
            if line is None:
                line = self._line(*item)
            if cors and line[:15].lower() == b"access-control-":
                continue
            lines += line
        return lines

    def _line(self, name: str, value: str) -> bytes:
        if name.lower() in OURS:
            return b""
        line = _safe_line(name, value)
        if not line:
            self._count("headers_refused")
        else:
            if len(self._lines) >= READY_LIMIT:
                self._lines.clear()
            self._lines[name, value] = line
        return line

    def _status_line(self, status: int) -> bytes:
        return b"HTTP/1.1 %d %b%b" % (status, _REASONS.get(status, b""), self._common)

    def _begin(self, status: int, content_type: str) -> bytes:
        """Everything before the length, kept for the next time."""
        beginning = self._beginnings.get((status, content_type))
        if beginning is None:
            line = _safe_line("Content-Type", content_type or DEFAULT_CONTENT_TYPE)
            if not line:
                self._count("headers_refused")
                line = _safe_line("Content-Type", DEFAULT_CONTENT_TYPE)
            beginning = b"%b%bContent-Length: " % (self._status_line(status), line)
            if len(self._beginnings) >= READY_LIMIT:
                self._beginnings.clear()
            self._beginnings[status, content_type] = beginning
        return beginning


def _own_content_type(headers: Iterable[tuple[str, str]]) -> str:
    """The content type a handler gave as a header rather than as such."""
    return next((value for name, value in headers if name.lower() == "content-type"), "")


def _safe_line(name: str, value: str) -> bytes:
    """One header line, or b"" when name or value could end it early or are no text."""
    if not _NAME.fullmatch(name) or (not (value.isascii() and value.isprintable()) and _UNSAFE.search(value)):
        return b""
    try:
        return f"{name}: {value}\r\n".encode()
    except UnicodeEncodeError:
        return b""


def logs_header(logs: list[dict[str, Any]] | None) -> bytes:
    """The X-Nuclio-Logs line, or b"" when no logs were asked for or they are too long."""
    if logs is None:
        return b""
    text = json.dumps(logs, separators=(",", ":"), default=str)
    return b"X-Nuclio-Logs: %b\r\n" % text.encode() if len(text) < LOGS_LIMIT else b""


RETRY_LATER = b"Retry-After: 1\r\n"
WITHOUT_REPLY = {
    Result.TIMED_OUT: (408, _JSON, b'{"error": "handler timed out"}', b""),
    Result.NO_WORKER: (503, "", b"", RETRY_LATER),
    Result.STOPPED: (503, "", b"", RETRY_LATER),
    Result.WORKER_DIED: (502, _JSON, error_body("the worker died while it handled this request"), b""),
    Result.TOO_LARGE: (413, _JSON, error_body("the request does not fit the function's `maxBodyBytes`"), b""),
}
"""Status, content type, body and further header lines for an event the function did not answer."""


def response(encoder: Encoder, outcome: Outcome, traits: Traits, *, close: bool, apart: int) -> tuple[bytes, ...]:
    """The long path: any outcome, any kind of request. A body of `apart` bytes or more is a piece of its own."""
    if outcome.result is Result.REPLIED:
        status, content_type, body = outcome.status, outcome.content_type, outcome.body
        headers = outcome.headers
        more = logs_header(outcome.logs)
    else:
        status, content_type, body, more = WITHOUT_REPLY[outcome.result]
        headers = []
    separate = len(body) >= apart and not traits.head and 200 <= status <= 599 and not bodiless(status)
    whole = encoder.full(
        status,
        content_type,
        b"" if separate else body,
        traits,
        headers=headers,
        more=more,
        close=close,
        length=len(body) if separate else None,
    )
    return (whole, body) if separate else (whole,)
