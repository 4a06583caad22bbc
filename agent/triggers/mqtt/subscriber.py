"""One trigger's life at its broker: a connection at a time, what outlives it, and how it ends.

Flow: link -> [subscriber] -> inbox -> sink; outcome -> [subscriber] -> inbox and outbox -> link.

Promises
- `serve` returns why the connection ended and never raises for what a broker or network can do.
- The state says "up" only once every subscription was granted.
- Cancelled, it starts nothing new, lets what is in flight finish, sends its acknowledgements, says goodbye and
  DISCONNECT (so the broker keeps the will to itself) and has closed the connection when it returns.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.event import Outcome, Result
from agent.model.sink import Sink
from agent.triggers.mqtt.backoff import Backoff
from agent.triggers.mqtt.client import Client
from agent.triggers.mqtt.credentials import read_password, tls_context
from agent.triggers.mqtt.events import event_of, response_of
from agent.triggers.mqtt.identity import client_id_of
from agent.triggers.mqtt.inbox import Inbox
from agent.triggers.mqtt.link import Link
from agent.triggers.mqtt.outbox import Outbox
from agent.triggers.mqtt.packets import PINGRESP_PACKET, Message, read_publish
from agent.triggers.mqtt.session import Session
from agent.triggers.mqtt.spec import MqttSpec

FAILURE_LOG_S = 10.0
"""A failed message is logged at most this often; the counter has them all."""

PUBLISH_AT_END_S = 2.0
"""How long responses and the goodbye may take to be acknowledged at the end."""


class Subscriber:
    """Holds what outlives a connection: paho's session, the inbox, the outbox."""

    def __init__(self, spec: MqttSpec, sink: Sink) -> None:
        self._spec, self._sink = spec, sink
        self._address = spec.address
        self._version = spec.version
        self.closing = False  # nothing new is started
        self._inbox = Inbox(self._start, sink.count, early=spec.promise == "at-most-once")
        self._client = Client(client_id_of(spec, sink), self._version, spec.clean_session)
        self._outbox = Outbox(self._client)
        self._session = Session(spec, sink, self._client, self._inbox, self._outbox)
        self._client.on_publish = self._on_published
        self._logged_at = -FAILURE_LOG_S
        self._unlogged = 0

    @property
    def client_id(self) -> str:
        return self._client.client_id

    async def serve(self, backoff: Backoff) -> str:
        """One connection, from connecting until it is gone; the reason. Tells `backoff` when it is up."""
        try:
            link = await self._connect()
        except SourceUnavailable as error:
            return error.what
        try:
            async with asyncio.TaskGroup() as tasks:
                pump = tasks.create_task(link.pump(self._sink.room), name="mqtt:pump")
                try:
                    return await self._use(link, backoff)
                finally:
                    pump.cancel()
        finally:
            self._session.ended()
            self._inbox.closed()
            await link.close()

    async def _connect(self) -> Link:
        """A TCP or TLS connection, nothing said on it yet. Raises SourceUnavailable."""
        spec, address = self._spec, self._address
        try:
            context = tls_context(spec)
            self._client.username_pw_set(spec.username or address.username or None, read_password(spec))
            self._session.begin()
            async with asyncio.timeout(spec.connect_timeout):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: Link(self, spec.max_packet_bytes, spec.keep_alive),
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=(spec.server_name or address.host) if context else None,
                )
        except SpecError as error:  # a file that was there at the start is being replaced, or is gone
            raise SourceUnavailable(str(error)) from error
        except TimeoutError as error:
            raise SourceUnavailable(f"no connection within {spec.connect_timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(f"cannot connect: {error}") from error
        return link

    async def _use(self, link: Link, backoff: Backoff) -> str:
        keep_alive: list[asyncio.TimerHandle] = []
        try:
            present = await self._session.open(link)
            self._tick(link, keep_alive)
            return await self._session.keep_subscribed(present, backoff)
        except SourceUnavailable as error:
            return error.what
        except asyncio.CancelledError:
            await self._finish(link)
            raise
        finally:
            for timer in keep_alive:
                timer.cancel()

    async def _finish(self, link: Link) -> None:
        """The end asked for: see the module's promises. Cancelled once more, it still leaves with DISCONNECT."""
        self.closing = True
        link.go_on()
        try:
            await self._sink.drained()
            await asyncio.sleep(0)  # a `done` of this very turn may still be on its way
            if self._session.connected:
                if self._spec.goodbye:
                    self._outbox.announce(self._spec.goodbye)
                await self._outbox.emptied(PUBLISH_AT_END_S)
        finally:
            connected = self._session.connected
            if connected:
                self._inbox.flush()
                self._client.disconnect()
        await link.close(polite=connected)

    def _tick(self, link: Link, handles: list[asyncio.TimerHandle]) -> None:
        """Let paho ping, four times per interval, so that a ping is never later than the broker's grace of a half.

        While reading is held back its answer cannot be seen; it is given to paho so that it goes on pinging, and the
        real judgement is made once reading goes on.
        """
        if link.held:
            self._client.handle(PINGRESP_PACKET)
        self._client.loop_misc()
        handles.clear()
        if self._client.keepalive and self._session.connected:
            later = asyncio.get_running_loop().call_later
            handles.append(later(self._client.keepalive / 4, self._tick, link, handles))

    # What the link calls

    @property
    def full(self) -> bool:
        return self._sink.full and not self.closing

    def on_publish(self, head: int, data: bytes, start: int, stop: int) -> None:
        message = read_publish(head, data, start, stop, self._version)
        if not self.closing:
            self._inbox.receive(message)
        elif message.qos == 0:
            self._sink.count("dropped")

    def on_oversized(self, head: int, data: bytes, start: int) -> None:
        topic_end = start + 2 + (data[start] << 8 | data[start + 1])
        head_end = topic_end + (2 if head & 6 else 0)
        message = read_publish(head, data[:head_end], start, head_end, 4)
        self._sink.count("too_large")
        self._sink.log.warning(
            "message larger than maxPacketBytes thrown away",
            topic=message.topic.decode(errors="replace"),
            max_packet_bytes=self._spec.max_packet_bytes,
        )
        self._inbox.refuse(message)

    def on_pubrel(self, mid: int) -> None:
        self._inbox.release(mid)

    def on_control(self, packet: bytes) -> None:
        self._client.handle(packet)

    def on_lost(self, why: str) -> None:
        self._session.lost(why)
        self._client.lost()

    # From message to outcome

    def _start(self, message: Message) -> None:
        event = event_of(message, self._address.text, self._sink.count)
        self._sink.deliver(event, partial(self._done, message))

    def _done(self, message: Message, outcome: Outcome) -> None:
        if outcome.result is Result.STOPPED:
            self._inbox.settle(message, acknowledge=False)
            return
        if message.properties is not None:
            self._respond(message, outcome)
        if not outcome.ok:
            self._failed(message, outcome)
        self._inbox.settle(message)

    def _respond(self, message: Message, outcome: Outcome) -> None:
        try:
            response = response_of(message, outcome)
            sent = response is None or self._outbox.publish(
                response.topic, response.body, message.qos, properties=response.properties
            )
        except ValueError:  # the requester's topic has wildcards or is not UTF-8
            sent = False
        if not sent:
            self._sink.count("responses_dropped")

    def _failed(self, message: Message, outcome: Outcome) -> None:
        """Out of attempts. Sending it again would change nothing, so it is acknowledged, counted and told."""
        self._sink.count("failed")
        now = time.monotonic()
        if now - self._logged_at < FAILURE_LOG_S:
            self._unlogged += 1
            return
        self._sink.log.warning(
            "message given up",
            topic=message.topic.decode(errors="replace"),
            result=outcome.result.value,
            status=outcome.status,
            attempts=outcome.attempts,
            more=self._unlogged,
        )
        self._logged_at, self._unlogged = now, 0

    def _on_published(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._outbox.acknowledged(mid)
