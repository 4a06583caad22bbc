"""The reading half of a connection: bytes in, requests out.

Flow: socket -> [parser and this] -> connection (protocol.py). Promise: a request is handed on once, when all of it is
here and nothing about it is doubtful; anything else becomes one Refusal. What is held of an unfinished request is
bounded: its head by `readBufferSize`, its body by `maxRequestBodySize`, chunk extensions and trailers by
`readBufferSize` again.
"""

from __future__ import annotations

import asyncio

import httptools

from agent.model.event import Event
from agent.triggers.http import cloudevents, request
from agent.triggers.http.listener import Listener
from agent.triggers.http.request import HEAD, NEEDS_A_LOOK, PLAIN, Refusal, Traits
from agent.triggers.http.response import error_body

HEALTH = b"/__internal/health"
Local = tuple[int, bytes] | None
"""Status and body of a reply the function is not asked for."""


class Incoming(asyncio.Protocol):
    """Parser callbacks and the state of the request being read."""

    __slots__ = (
        "_body", "_body_left", "_body_size", "_close_after", "_cloud", "_continue_due", "_event", "_headers",
        "_listener", "_local", "_parser", "_quiet", "_resuming", "_since", "_traits", "_upgrade", "_url",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._event: Event | None = None  # from the end of the head to the end of the body
        self._body: bytes | bytearray = b""
        self._body_size = 0
        self._body_left = 0  # of a body of known length
        self._traits = PLAIN
        self._local: Local = None
        self._cloud: request.Known | None = None
        self._upgrade = False  # the parser will stop after the head, thinking another protocol follows
        self._resuming = False
        self._continue_due = False
        self._quiet = 0  # bytes since the request began, or (and at least 1) since its last piece of body
        self._since = 0  # tick at which what goes on now began
        self._close_after = False  # nothing after what has been read will be read

    # --- what the other half does --------------------------------------------------------------------------------

    def _accept(self, event: Event, traits: Traits, local: Local) -> None:
        """A whole request is here."""
        raise NotImplementedError

    def _refuse(self, refusal: Refusal) -> None:
        """No further request can be read from this connection, and this is why."""
        raise NotImplementedError

    def _say_continue(self) -> None:
        """A client waits to be told to send its body (`_continue_due`)."""
        raise NotImplementedError

    # --- bytes ---------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes | memoryview) -> None:
        if not self._quiet:
            self._since = self._listener.tick
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = upgrade.args[0]
        except httptools.HttpParserError as error:
            self._stopped(error)
            return
        else:
            if self._quiet > self._listener.head_limit:
                self._refuse(self._too_long())
            return
        self._read_on(data[rest:])

    def _read_on(self, data: bytes | memoryview) -> None:
        """The parser stopped, thinking another protocol begins here. We ignore the offer and go on in HTTP.

        It has skipped the body, if there is one: a fresh parser is told how the body ends, and reads it.
        """
        if self._upgrade:
            self._upgrade, self._resuming, self._headers = False, True, []
            self._parser = httptools.HttpRequestParser(self)
            length = b"Content-Length: %d" % self._body_left if self._body_left else b"Transfer-Encoding: chunked"
            going = b"close" if self._traits.close else b"keep-alive"
            self._parser.feed_data(b"POST / HTTP/1.1\r\nConnection: %b\r\n%b\r\n\r\n" % (going, length))
            self._resuming, self._headers = False, []
        if len(data) and not self._close_after:
            self._feed(data)

    def _stopped(self, error: Exception) -> None:
        """The parser gave up. It says why, or one of our callbacks did."""
        if self._close_after:
            return  # whatever follows a request that said "close" is not for us
        cause = error.__context__
        if isinstance(cause, Refusal):
            self._refuse(cause)
        elif isinstance(error, httptools.HttpParserCallbackError):
            self._listener.sink.log.opt(exception=cause).error("a request could not be read")
            self._refuse(Refusal(500, "internal error"))
        elif (version := self._parser.get_http_version()) not in ("0.0", "1.0", "1.1"):
            self._refuse(request.wrong_version(version))  # HTTP/2 begins like a request, too
        else:
            self._refuse(Refusal(400, f"not a valid HTTP request: {error}"))

    def _too_long(self) -> Refusal:
        if len(self._url) * 2 > self._listener.head_limit:
            return Refusal(414, "the request target is too long")
        return Refusal(431, f"request line and headers are longer than {self._listener.head_limit} bytes")

    # --- the parser's side ---------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        parser, headers, url = self._parser, self._headers, self._url
        limit = self._listener.head_limit
        if self._quiet > limit and request.head_bytes(url, headers) > limit:
            raise self._too_long()
        known = {name.lower(): value for name, value in headers}
        method: bytes = parser.get_method()
        self._traits = PLAIN if method != b"HEAD" else HEAD
        if url[0] != 47 or b"#" in url:
            url = request.origin_form(url, method)
        path, _, query = url.partition(b"?")
        content_type = known.get(b"content-type", b"")
        self._event = event = Event(
            b"",
            content_type,
            headers,
            query,
            method.decode(),
            path.decode() if b"%" not in path else request.decoded(path),
        )
        if b"content-length" in known:
            self._body_left = request.content_length(known[b"content-length"], self._listener.body_limit)
            if self._body_left:
                self._quiet = 1
        if (
            not NEEDS_A_LOOK.isdisjoint(known)
            or len(known) != len(headers)
            or b"host" not in known
            or not parser.should_keep_alive()
            or self._listener.cors is not None
        ):
            self._look_closer(known, method, event)
        if content_type and content_type[:23].lower() == cloudevents.PREFIX:
            self._cloud = known
        if path.startswith(HEALTH):
            self._local = (200, b"")

    def on_body(self, piece: bytes) -> None:
        self._quiet = 1
        size = len(piece)
        self._body_size += size
        if self._body_left:
            self._body_left -= size
        elif self._body_size > self._listener.body_limit:
            raise Refusal(413, f"the body is longer than {self._listener.body_limit} bytes")
        if not self._body:
            self._body = piece
            return
        if type(self._body) is bytes:
            self._body = bytearray(self._body)
        self._body += piece

    def on_message_complete(self) -> None:
        if self._upgrade:
            return  # not complete: the parser has only stopped reading, see _read_on
        event = self._event
        assert event is not None
        if self._body:
            event.body = self._body
            self._body = b""
        if self._cloud is not None:
            cloud, self._cloud = self._cloud, None
            if self._local is None:
                cloudevents.unwrap(event, cloud)
        traits, local, self._local = self._traits, self._local, None
        self._event = None
        self._url = b""
        self._headers = []
        self._quiet = self._body_size = 0
        self._continue_due = False
        if traits.close:
            self._close_after = True
        self._accept(event, traits, local)

    def _look_closer(self, known: request.Known, method: bytes, event: Event) -> None:
        """Everything about a head that most requests do not have. Raises Refusal."""
        headers, parser = self._headers, self._parser
        version = parser.get_http_version()
        request.check_version(version)
        if len(known) != len(headers):
            request.check_repeated(headers)
        request.check_host(known, version)
        keep_alive = parser.should_keep_alive()
        chunked = request.check_coding(known, version)
        extra = self._cross_origin(known, method)
        if extra or not keep_alive or version == "1.0":
            http10 = keep_alive and version == "1.0"
            self._traits = Traits(not keep_alive, http10, self._traits.head, extra)
        event.log_level = request.log_level(known)
        if cloudevents.is_binary(known):
            self._cloud = known
        if chunked:
            self._quiet = 1
            self._headers = []  # what comes now are trailers, which nobody gets
        has_body = chunked or self._body_left > 0
        self._upgrade = has_body and b"upgrade" in known and parser.should_upgrade()
        if request.wants_continue(known, version) and has_body:
            self._continue_due = True
            self._say_continue()

    def _cross_origin(self, known: request.Known, method: bytes) -> bytes:
        """CORS header lines for the reply. A browser's question, and a page that may not ask, are answered here."""
        cors = self._listener.cors
        if cors is None:
            return b""
        if cors.is_preflight(method, known):
            status, lines = cors.preflight(known)
            self._local = (status, b"")
            return lines
        if not cors.allows(known):
            self._local = (403, error_body("this origin is not in the trigger's cors.allowOrigins"))
            return cors.VARY
        return cors.ordinary(known)
