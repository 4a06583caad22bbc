"""Requests that no friendly client sends, and what the right answer to each is. Used against any HTTP listener of ours.

`status` is that of the one answer; None: it is closed without one (nothing that could be answered was sent).
Every case but those marked `goes_on` must end its connection: what follows cannot be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_LIMIT = 16384
BODY_LIMIT = 4 << 20


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    status: int | None
    goes_on: bool = False  # the connection stays usable


def get(*lines: str, target: str = "/", version: str = "HTTP/1.1", method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} {version}", *lines, "", "")).encode("latin-1")


def post(*lines: str, body: bytes = b"") -> bytes:
    return get("Host: x", *lines, method="POST") + body


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


CHUNKS = {
    "letter as size": b"g\r\nabc\r\n0\r\n\r\n",
    "negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "0x size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "plus size": b"+3\r\nabc\r\n0\r\n\r\n",
    "space after size": b"3 \r\nabc\r\n0\r\n\r\n",
    "empty size": b"\r\nabc\r\n0\r\n\r\n",
    "size overflow": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "bare LF after size": b"3\nabc\r\n0\r\n\r\n",
    "bare LF in extension": b"3;a\nabc\r\n0\r\n\r\n",
    "bare LF after data": b"3\r\nabc\n0\r\n\r\n",
    "data longer than size": b"3\r\nabcd\r\n0\r\n\r\n",
    "no CRLF after data": b"3\r\nabc0\r\n\r\n",
    "NUL in extension": b"3;\0\r\nabc\r\n0\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
}

LENGTHS = {
    "plus": "+3",
    "list": "3, 3",
    "hexadecimal": "0x3",
    "negative": "-3",
    "empty": "",
    "overflow": "99999999999999999999999",
    "two numbers": "3 4",
    "underscore": "1_0",
    "fraction": "3.0",
}

SMUGGLING = [
    Case("length and chunked", post("Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    Case("chunked and length", post("Transfer-Encoding: chunked", "Content-Length: 3", body=b"0\r\n\r\n"), 400),
    Case("two lengths", post("Content-Length: 3", "Content-Length: 4", body=b"abc"), 400),
    Case("the same length twice", post("Content-Length: 3", "Content-Length: 3", body=b"abc"), 400),
    Case("chunked twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    Case("chunked not last", post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    Case("identity coding", post("Transfer-Encoding: identity", body=b"abc"), 501),
    Case("almost chunked", post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    Case("gzip coding", post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    Case("empty coding", post("Transfer-Encoding:", body=b"0\r\n\r\n"), 400),
    Case("vertical tab coding", post("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    Case("coding on 1.0", get("Transfer-Encoding: chunked", version="HTTP/1.0", method="POST") + b"0\r\n\r\n", 400),
    Case("space before colon", post("Content-Length : 3", body=b"abc"), 400),
    Case("length hidden by a fold", post("X: a\r\n Content-Length: 3", body=b"abc"), 400),
    Case("bare CR hides a header", post("X: a\rContent-Length: 3", body=b"abc"), 400),
    Case("bare LF hides a header", post("X: a\nContent-Length: 3", body=b"abc"), 400),
    Case("length in a trailer", chunked(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"), 400),
    *(Case(f"length {name}", post(f"Content-Length: {value}", body=b"abc"), 400) for name, value in LENGTHS.items()),
    *(Case(f"chunk: {name}", chunked(body), 400) for name, body in CHUNKS.items()),
]

MALFORMED = [
    Case("bare LF everywhere", b"GET / HTTP/1.1\nHost: x\n\n", 400),
    Case("bare LF at the end", b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
    Case("CR CR LF", b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400),
    Case("folded header", get("Host: x", "X: a\r\n b"), 400),
    Case("NUL in value", get("Host: x", "X: a\0b"), 400),
    Case("NUL in name", get("Host: x", "X\0: a"), 400),
    Case("control character in value", get("Host: x", "X: a\x07b"), 400),
    Case("parenthesis in name", get("Host: x", "X(: a"), 400),
    Case("empty name", get("Host: x", ": a"), 400),
    Case("no colon", get("Host: x", "what is this"), 400),
    Case("no Host", get("X: a"), 400),
    Case("two Hosts", get("Host: x", "Host: y"), 400),
    Case("two content types", post("Content-Type: a/b", "Content-Type: c/d", "Content-Length: 0"), 400),
    Case("unknown method", get("Host: x", method="BREW"), 400),
    Case("lower-case method", get("Host: x", method="get"), 400),
    Case("control character in target", get("Host: x", target="/a\x01b"), 400),
    Case("NUL in target", get("Host: x", target="/a\0b"), 400),
    Case("raw byte in target", get("Host: x", target="/a\xff"), 400),
    Case("space in target", get("Host: x", target="/a b"), 400),
    Case("fragment in target", get("Host: x", target="/a#b"), 400),
    Case("target without slash", get("Host: x", target="a"), 400),
    Case("star for GET", get("Host: x", target="*"), 400),
    Case("ftp target", get("Host: x", target="ftp://a/b"), 400),
    Case("version 0.9", get("Host: x", version="HTTP/0.9"), 505),
    Case("version missing", b"GET /\r\n\r\n", 505),
    Case("version 1.2", get("Host: x", version="HTTP/1.2"), 505),
    Case("version 2.0", get("Host: x", version="HTTP/2.0"), 505),
    Case("version 3.0", get("Host: x", version="HTTP/3.0"), 505),
    Case("other protocol", get("Host: x", version="SIP/2.0"), 400),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 505),
    Case("CONNECT", get("Host: x:80", target="x:80", method="CONNECT"), 405),
    Case("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), 400),
    Case("noise", bytes(range(256)), 400),
    Case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    Case("unknown expectation", post("Expect: 200-ok", "Content-Length: 3", body=b"abc"), 417),
]

TOO_MUCH = [
    Case("long target", get("Host: x", target="/" + "a" * HEAD_LIMIT), 414),
    Case("long query", get("Host: x", target="/?" + "a" * HEAD_LIMIT), 414),
    Case("one long header", get("Host: x", "X: " + "a" * HEAD_LIMIT), 431),
    Case("a long header name", get("Host: x", "X" * HEAD_LIMIT + ": a"), 431),
    Case("many headers", get("Host: x", *(f"X-{n}: {n}" for n in range(2000))), 431),
    Case("endless header", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (20 * HEAD_LIMIT), 431),
    Case("endless empty lines", b"\r\n" * HEAD_LIMIT, 431),
    Case("1 GB announced", post("Content-Length: 1073741824", body=b"abc"), 413),
    Case("one byte too many", post(f"Content-Length: {BODY_LIMIT + 1}"), 413),
    Case("too long to wait for", post("Expect: 100-continue", "Content-Length: 1073741824"), 413),
    Case(
        "too many chunks",
        chunked(b"10000\r\n" + b"a" * 65536 + b"\r\n") + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 64,
        413,
    ),
    Case("endless chunk extension", chunked(b"3;" + b"a" * (20 * HEAD_LIMIT)), 431),
    Case("endless trailer", chunked(b"3\r\nabc\r\n0\r\nX: " + b"a" * (20 * HEAD_LIMIT)), 431),
    Case("trailer flood", chunked(b"0\r\n" + b"X: a\r\n" * HEAD_LIMIT), 431),
]

UNUSUAL = [
    Case("empty lines first", b"\r\n\r\n" + get("Host: x"), 200, goes_on=True),
    Case("empty Host", get("Host:"), 200, goes_on=True),
    Case("absolute target", get("Host: x", target="http://x/a?b=1"), 200, goes_on=True),
    Case("star for OPTIONS", get("Host: x", target="*", method="OPTIONS"), 200, goes_on=True),
    Case("body on GET", get("Host: x", "Content-Length: 3") + b"abc", 200, goes_on=True),
    Case("chunk extension", chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n"), 200, goes_on=True),
    Case("trailers", chunked(b"3\r\nabc\r\n0\r\nX: a\r\nY: b\r\n\r\n"), 200, goes_on=True),
    Case("upgrade to h2c", get("Host: x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), 200, goes_on=True),
    Case(
        "upgrade with a body",
        post("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 3", body=b"abc"),
        200,
        goes_on=True,
    ),
    Case(
        "upgrade with chunks",
        post("Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        200,
        goes_on=True,
    ),
    Case("websocket", get("Host: x", "Connection: Upgrade", "Upgrade: websocket"), 200, goes_on=True),
    Case("names in any case", post("cOnTeNt-LeNgTh: 3", body=b"abc"), 200, goes_on=True),
    Case("bytes above ASCII in value", get("Host: x", "X: \xe9\xff"), 200, goes_on=True),
    Case("kept alive on 1.0", get("Connection: keep-alive", version="HTTP/1.0"), 200, goes_on=True),
    Case("1.0", get(version="HTTP/1.0"), 200),
    Case("close", get("Host: x", "Connection: close"), 200),
    Case("requests after close", get("Host: x", "Connection: close") + get("Host: x"), 200),
]

UNFINISHED = [
    Case("nothing", b"", None),
    Case("half a method", b"GE", None),
    Case("half a head", b"GET / HTTP/1.1\r\nHost: x\r\n", None),
    Case("half a body", post("Content-Length: 10", body=b"abc"), None),
    Case("half a chunk", chunked(b"a\r\nabc"), None),
    Case("no last chunk", chunked(b"3\r\nabc\r\n"), None),
]
"""The client half-closes after these."""

CORPUS = [*SMUGGLING, *MALFORMED, *TOO_MUCH, *UNUSUAL]
