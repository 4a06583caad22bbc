"""One HTTP/1 connection: bytes in, events out, replies back in order.

Flow: socket -> parser -> [connection] -> `sink.dispatch` -> outcome -> one write. Promise: per request no task, no
future, no timer and no clock; what is not the plain case (errors, HEAD, CORS, CloudEvents, files, HTTP/1.0) leaves
the short path and pays for itself. One client cannot harm another: at most PIPELINE of its requests are under way,
and nothing new is started for a client that does not read its replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import cast

from agent.model.event import Event, Outcome, Result
from agent.model.sink import Done
from agent.triggers.http import filestream
from agent.triggers.http.incoming import Incoming, Local
from agent.triggers.http.listener import Listener
from agent.triggers.http.request import HEAD, PLAIN, Refusal, Traits
from agent.triggers.http.response import RETRY_LATER, error_body, response

PIPELINE = 16  # requests of one connection that are started and not yet answered
SLICE = 4096  # bytes parsed at once, so that a flood of tiny requests cannot outrun PIPELINE by much
LINGER_S = 2.0  # after an early goodbye, to let the client read it; closing at once would reset the connection
SLOWEST_BODY = 100  # bytes a second, over each window of `request_timeout`
LARGE = 65536  # a reply from this size on is not copied together with its head, and narrows the pipeline to one
REPLIED = Result.REPLIED
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


Reply = bytes | tuple[bytes, ...] | filestream.FileReply


class Exchange:
    """One request and its reply's place in line. Used again for the next request of its connection."""

    __slots__ = ("done", "event", "reply", "traits")

    def __init__(self, connection: Connection) -> None:
        self.traits = PLAIN
        self.event: Event | None = None  # until it is handed over
        self.reply: Reply | None = None
        self.done: Done = partial(connection.answered, self)  # made once, not per request


class Connection(Incoming):
    """Made by the loop's server for each accepted socket."""

    __slots__ = (
        "_backlog", "_body_mark", "_eating", "_end_of_file", "_ended", "_lingering", "_queue", "_reading", "_spare",
        "_started", "_streaming", "_transport", "_unread", "_width", "_writable", "_write_paused",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._transport: asyncio.Transport | None = None
        # replies
        self._queue: deque[Exchange] = deque()
        self._started = 0  # how many at the front of the queue have been handed over
        self._spare: Exchange | None = Exchange(self)
        self._width = PIPELINE
        self._streaming = False
        self._writable: asyncio.Future[None] | None = None
        self._body_mark = 0  # `_body_size` when the window of `_since` began
        self._unread = 0  # bytes the client had not taken at the last sweep
        # the way the connection goes
        self._backlog: memoryview | None = None  # received, not parsed yet
        self._reading = True
        self._write_paused = False
        self._ended = False
        self._end_of_file = False  # the client sends no more
        self._lingering = False  # our half is closed, see _end
        self._eating = False

    # --- the loop's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._since = self._listener.tick
        if not self._listener.add(self):
            self._listener.sink.count("connections_refused")
            encoder = self._listener.encoder
            self._transport.write(encoder.full(503, "", b"", close=True, more=RETRY_LATER))
            self._ended = True
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.remove(self)
        if self._started and not self._ended:
            self._listener.sink.count("clients_gone")
        self._transport = None
        self._ended = self._close_after = True
        self._backlog = None
        self._queue.clear()
        self._wake_writer()
        # The parser and the spare exchange refer back here: take them apart rather than leave it to the collector.
        del self._parser
        if self._spare is not None:
            del self._spare.done

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE and self._backlog is None and not self._close_after:
            self._feed(data)
        elif not self._close_after:
            self._backlog = memoryview(data if self._backlog is None else bytes(self._backlog) + data)
            self._eat_backlog()

    def eof_received(self) -> bool:
        """The client will send no more. It still gets what it asked for (not over TLS, which cannot be half closed)."""
        if self._ended or not self._queue or self._is_tls():
            return False
        self._close_after = self._end_of_file = True
        return True

    def pause_writing(self) -> None:
        self._write_paused = True
        self._since = self._listener.tick
        self._pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writer()
        self._advance()

    # --- requests ------------------------------------------------------------------------------------------------

    def _accept(self, event: Event, traits: Traits, local: Local) -> None:
        exchange = self._spare or Exchange(self)
        self._spare = None
        exchange.traits = traits
        queue = self._queue
        queue.append(exchange)
        if local is None and len(queue) == 1 and not self._write_paused:
            self._started = 1
            self._listener.dispatch(event, exchange.done)
            return
        if local is None:
            exchange.event = event
        else:
            status, body = local
            content_type = "application/json" if body else ""
            exchange.reply = self._listener.encoder.full(status, content_type, body, traits)
        self._advance()
        if len(queue) >= PIPELINE:
            self._pause_reading()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error once what came before is answered, then end the connection."""
        self._listener.sink.count("requests_refused")
        self._close_after = True
        self._event = self._cloud = self._local = None
        self._body = b""
        exchange = Exchange(self)
        exchange.reply = self._listener.encoder.full(
            refusal.status,
            "application/json",
            error_body(refusal.text),
            HEAD if self._parser.get_method() == b"HEAD" else PLAIN,
            more=refusal.extra,
            close=True,
        )
        self._queue.append(exchange)
        self._advance()

    def _say_continue(self) -> None:
        """The client may send its body now; said in its turn, after the replies to what came before."""
        if self._continue_due and not self._queue and self._transport is not None:
            self._continue_due = False
            self._transport.write(CONTINUE)

    def _eat_backlog(self) -> None:
        """Parse what has been received, until there are enough requests. Not from inside itself: the parser is busy."""
        if self._eating:
            return
        self._eating = True
        while (backlog := self._backlog) is not None:
            if self._close_after:
                self._backlog = None
            elif self._write_paused or len(self._queue) >= PIPELINE:
                self._pause_reading()
                break
            else:
                size = max(SLICE, self._body_left)
                self._backlog = backlog[size:] if len(backlog) > size else None
                self._feed(backlog[:size])
        self._eating = False

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    # --- the function's side -------------------------------------------------------------------------------------

    def answered(self, exchange: Exchange, outcome: Outcome) -> None:
        """The outcome of an exchange's event is there. Called once per exchange, in any order."""
        transport = self._transport
        if transport is None:
            self._forget(exchange, outcome)
            return
        if (
            outcome.result is REPLIED
            and exchange.traits is PLAIN
            and not outcome.headers
            and outcome.logs is None
            and len(outcome.body) < LARGE
            and not self._listener.draining
        ):
            reply = self._listener.encoder.plain(outcome.status, outcome.content_type, outcome.body)
            if len(self._queue) == 1 and self._reading and not self._close_after:
                self._queue.clear()
                self._started = 0
                self._spare = exchange
                transport.write(reply)
                if self._continue_due:
                    self._say_continue()
                return
            exchange.reply = reply
        else:
            exchange.reply = self._encode(exchange, outcome)
        self._advance()

    def _encode(self, exchange: Exchange, outcome: Outcome) -> Reply:
        traits = exchange.traits
        close = traits.close or self._is_last(exchange)
        if outcome.headers and outcome.result is REPLIED:
            file = filestream.requested(outcome, close)
            if file is not None:
                return file
        return response(self._listener.encoder, outcome, traits, close=close, apart=LARGE)

    def _is_last(self, exchange: Exchange) -> bool:
        """The trigger stops and nothing of a further request is here: this reply is the goodbye."""
        if not self._listener.draining or exchange is not self._queue[-1] or not self._between_requests():
            return False
        self._close_after = True
        return True

    def _between_requests(self) -> bool:
        return not self._quiet and not self._url and self._backlog is None

    def _forget(self, exchange: Exchange, outcome: Outcome) -> None:
        """The client left before its answer came."""
        del exchange.done
        file = filestream.requested(outcome, True) if outcome.headers else None
        if file is not None and file.delete_after_send:
            self._listener.reader.submit(filestream.delete, file.path)

    def _advance(self) -> None:
        """Send what is ready, in order; start what has waited for its turn; then see how the connection goes on."""
        queue = self._queue
        while queue and not self._streaming and (reply := queue[0].reply) is not None:
            if isinstance(reply, filestream.FileReply):
                self._streaming = True
                self._listener.tasks.create_task(self._send_file(queue[0], reply), name="http: file")
            else:
                self._send(reply)
                self._pop()
        while self._started < min(len(queue), self._width) and not self._write_paused:
            exchange = queue[self._started]
            self._started += 1
            if exchange.event is not None:
                event, exchange.event = exchange.event, None
                self._listener.dispatch(event, exchange.done)
        if not queue:
            self._say_continue()
            if self._close_after:
                self._end(linger=not self._end_of_file)
        if len(queue) <= PIPELINE // 2 and not self._write_paused:
            self._eat_backlog()
            if self._backlog is None and len(queue) < PIPELINE:
                self._resume_reading()

    def _pop(self) -> None:
        exchange = self._queue.popleft()
        exchange.reply = None
        self._started = max(0, self._started - 1)
        if self._spare is None:
            self._spare = exchange
        else:
            del exchange.done  # it refers back to its exchange

    def _send(self, reply: bytes | tuple[bytes, ...]) -> None:
        if self._transport is None or self._ended:
            return
        if isinstance(reply, bytes):
            self._transport.write(reply)
            return
        for piece in reply:
            self._transport.write(piece)
        if len(reply) > 1:
            self._width = 1

    async def _send_file(self, exchange: Exchange, reply: filestream.FileReply) -> None:
        """A task of its own: reading a file may take long."""
        complete = await filestream.answer(
            reply, exchange.traits, self._listener.encoder, self._listener.reader, self._send, self._wait_writable
        )
        self._streaming = False
        if self._transport is None:
            return
        if not complete:
            self._transport.abort()
            return
        self._pop()
        self._advance()

    async def _wait_writable(self) -> bool:
        """Returns when the client has taken what was sent (True) or is gone (False)."""
        while self._write_paused and self._transport is not None:
            self._writable = self._listener.loop.create_future()
            await self._writable
        return self._transport is not None

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self, *, linger: bool = False) -> None:
        """Close the connection. With `linger` only our half at first: the client may be sending still, and closing at
        once would reset the connection and could destroy the last reply before it was read.
        """
        if self._ended or self._transport is None:
            return
        self._ended = self._close_after = True
        self._since = self._listener.tick
        if linger and self._transport.can_write_eof():
            self._lingering = True
            self._transport.write_eof()
            self._resume_reading()
        else:
            self._transport.close()

    def end_if_idle(self) -> None:
        """The trigger stops and this kept-alive connection has nothing under way."""
        if not self._queue and self._between_requests():
            self._end()

    def abort(self) -> None:
        """Cut the connection, whatever is under way."""
        self._ended = self._close_after = True
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, tick: int) -> None:
        """Called once a tick: end what has taken too long."""
        waited = tick - self._since
        listener = self._listener
        if self._ended:
            linger = LINGER_S / listener.tick_s if self._lingering else listener.request_ticks
            if waited >= linger:
                self.abort()
        elif self._write_paused:
            self._watch_reader(waited, tick)
        elif self._queue:
            self._since = tick
        elif self._event is not None:
            self._watch_body(waited, tick)
        elif self._quiet or self._url:
            if waited >= listener.request_ticks:
                self._refuse(Refusal(408, "the request took too long to arrive"))
        elif waited >= listener.idle_ticks:
            self._end()

    def _watch_reader(self, waited: int, tick: int) -> None:
        """A client that takes nothing of its replies is cut off."""
        assert self._transport is not None
        unread = self._transport.get_write_buffer_size()
        if unread < self._unread:
            self._since = tick
        elif waited >= self._listener.request_ticks:
            self._listener.sink.count("clients_stuck")
            self.abort()
        self._unread = unread

    def _watch_body(self, waited: int, tick: int) -> None:
        """A body has to come at SLOWEST_BODY bytes a second at least, on average over each window."""
        listener = self._listener
        if waited < listener.request_ticks:
            return
        if self._body_size - self._body_mark < SLOWEST_BODY * listener.request_ticks * listener.tick_s:
            self._refuse(Refusal(408, "the body took too long to arrive"))
            return
        self._body_mark, self._since = self._body_size, tick

    def _is_tls(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None
