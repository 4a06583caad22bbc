"""What a request's head says about itself: how it ends, whether it is one we accept, how its reply must look.

Flow: parser -> connection -> [this] -> Event. Pure functions. The parser has already refused what is not HTTP (bare CR
or LF, folded or misnamed headers, two lengths, bad chunks); here is what is well-formed and still refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from agent.model.event import Text

Known = Mapping[bytes, bytes]
"""Header values by lower-case name; of repeated ones the last."""

NEEDS_A_LOOK = frozenset(
    [
        b"connection",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"origin",
        b"x-nuclio-log-level",
        b"ce-specversion",
        b"ce-cloudeventsversion",
    ]
)
"""A request with none of these is read on the short path."""

ONCE = (b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect")
LOG_LEVELS = frozenset(["debug", "info", "warn", "error"])


class Refusal(Exception):
    """This request is answered with an error and the connection ends, since its remainder cannot be trusted."""

    def __init__(self, status: int, text: str, extra: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.extra = extra  # finished header lines


@dataclass(frozen=True, slots=True)
class Traits:
    """What about a request shapes its reply. `extra`: finished header lines to add."""

    close: bool = False
    http10: bool = False  # kept alive on HTTP/1.0, which has to be said
    head: bool = False  # answered without its body
    extra: bytes = b""


PLAIN = Traits()
HEAD = Traits(head=True)


def wrong_version(version: str) -> Refusal:
    return Refusal(505, f"HTTP/{version} is not spoken here, only 1.1 and 1.0")


def check_version(version: str) -> None:
    """Raises Refusal for anything but HTTP/1.0 and 1.1."""
    if version not in ("1.0", "1.1"):
        raise wrong_version(version)


def check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises Refusal when a header that two readers could understand differently is there twice."""
    names = [name.lower() for name, _ in headers]
    for name in ONCE:
        if names.count(name) > 1:
            raise Refusal(400, f"header {name.decode()} is there more than once")


def check_host(known: Known, version: str) -> None:
    """HTTP/1.1 asks for exactly one Host (its value may be empty)."""
    if version == "1.1" and b"host" not in known:
        raise Refusal(400, "HTTP/1.1 needs a Host header")


def content_length(value: bytes, limit: int) -> int:
    """The announced bytes of the body; the parser has checked that it is a number. Raises Refusal for too many."""
    length = int(value)
    if length > limit:
        raise Refusal(413, f"the body is longer than {limit} bytes")
    return length


def check_coding(known: Known, version: str) -> bool:
    """Is the body chunked? Raises Refusal for any other coding, and for one on HTTP/1.0."""
    coding = known.get(b"transfer-encoding")
    if coding is None:
        return False
    if version == "1.0":
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.strip().lower() != b"chunked":
        raise Refusal(501, "the only Transfer-Encoding understood here is chunked")
    return True


def wants_continue(known: Known, version: str) -> bool:
    """The client holds its body back until it is told to go on. Raises Refusal for any other expectation."""
    expectation = known.get(b"expect")
    if expectation is None or version == "1.0":
        return False
    if expectation.lower() != b"100-continue":
        raise Refusal(417, "the only expectation met here is 100-continue")
    return True


def origin_form(url: bytes, method: bytes) -> bytes:
    """The target as path and query. Raises Refusal for targets of proxies and for fragments."""
    if method == b"CONNECT":
        raise Refusal(
            405, "this is not a proxy: CONNECT is refused", b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"
        )
    if b"#" in url:
        raise Refusal(400, "a request target has no fragment")
    if url.startswith(b"/"):
        return url
    if url == b"*":
        if method != b"OPTIONS":
            raise Refusal(400, "only OPTIONS may ask for *")
        return url
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise Refusal(400, "the request target is neither a path nor an http URL")
    authority, separator, path = rest.partition(b"/")
    if separator:
        return b"/" + path
    _, separator, query = authority.partition(b"?")
    return b"/" + separator + query


def decoded(path: bytes) -> Text:
    """The path without its percent signs; bytes when they do not spell UTF-8."""
    raw = unquote_to_bytes(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def log_level(known: Known) -> str:
    """The level asked for with X-Nuclio-Log-Level, or "" for none or an unknown one."""
    level = known.get(b"x-nuclio-log-level", b"").decode("latin-1").strip().lower()
    return level if level in LOG_LEVELS else ""


def head_bytes(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Length of the request line and headers as they were sent, to within the length of the method."""
    return len(url) + 16 + sum(len(name) + len(value) + 4 for name, value in headers)
