"""One broker: a connection at a time, what is on its way over all of them, and how it ends.

Flow: outlet -> [sender] -> link -> broker; PUBACK, PUBREC and PUBCOMP -> [sender] -> outlet.

Promises
- At most a window of messages is unacknowledged, in number and in bytes.
- After a reconnect those are sent again, first and in their order, with DUP, under the same packet id.
- A packet id follows from the message's number, so that after a crash too a QoS 2 message has the id under which the
  broker may hold it already; that the broker has it (PUBREC) is on the disk before PUBREL is sent.
- `serve` returns why the connection ended and never raises for what a broker or network can do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.outlet import Outlet, Parcel
from agent.triggers.mqtt.backoff import Backoff
from agent.triggers.mqtt.client import Client, properties_of
from agent.triggers.mqtt.credentials import read_password, tls_context
from agent.triggers.mqtt.link import Link
from agent.triggers.mqtt.session import REASONS, TAKEN_OVER
from agent.triggers.mqtt.spec import MqttSpec
from bindings.mqtt import packets

WINDOW = 64
UNSTATED_WINDOW = 20
"""With MQTT 3.1.1 a broker cannot say how much it takes at once. mosquitto's own bound is 20, and of QoS 2 messages
beyond it 2.0 loses some without a word."""

WINDOW_BYTES = 4 << 20
MOST_PACKET = 1 << 20  # of what the broker may send us: answers only
_IDS = 65535


class SendingLink(Link):
    """Tells its sender when it may write again."""

    def resume_writing(self) -> None:
        super().resume_writing()
        assert isinstance(self._receiver, Sender)
        self._receiver.fill()


class Sender:
    """Holds what outlives a connection. Implements agent.triggers.mqtt.link.Receiver."""

    def __init__(self, spec: MqttSpec, outlet: Outlet, client_id: str) -> None:
        self._spec, self._outlet, self._address = spec, outlet, spec.address
        self._client = Client(client_id, spec.version, spec.clean_session)
        self._client.on_connect, self._client.on_disconnect = self._on_connect, self._on_disconnect
        self._configure()
        self._link: SendingLink | None = None
        self._lost: asyncio.Future[str] | None = None
        self._connected: asyncio.Future[None] | None = None
        self._in_flight: dict[int, Parcel] = {}  # by packet id, in the order they were first sent
        self._bytes = 0
        self._next: Parcel | None = None  # taken, and not sent: its packet id is still in use
        self._window, self._max_qos, self._max_bytes, self._retains = UNSTATED_WINDOW, 2, 0, True
        self._forgotten = False  # the broker had to begin a session: it knows nothing of what an earlier process sent
        self.online = False
        outlet.attach(self.fill)

    def _configure(self) -> None:
        spec = self._spec
        properties = None
        if spec.version == 5:
            expiry = 0 if spec.clean_session else min(round(spec.session_expiry), 0xFFFFFFFF)
            properties = properties_of(PacketTypes.CONNECT, SessionExpiryInterval=expiry, MaximumPacketSize=MOST_PACKET)
        self._client.connect_async(
            self._address.host,
            self._address.port,
            round(spec.keep_alive),
            clean_start=spec.clean_session,
            properties=properties,
        )

    @property
    def client_id(self) -> str:
        return self._client.client_id

    # --- one connection ---------------------------------------------------------------------------------------------

    async def serve(self, backoff: Backoff) -> str:
        """From connecting until it is gone; the reason. Tells `backoff` when it is up."""
        loop = asyncio.get_running_loop()
        self._lost, self._connected = loop.create_future(), loop.create_future()
        try:
            link = await self._connect()
        except SourceUnavailable as error:
            return error.what
        keep_alive: list[asyncio.TimerHandle] = []
        polite = False
        try:
            self._link = link
            self._client.open(link.write)
            await self._accepted()
            backoff.up()
            self._tick(keep_alive)
            return await self._lost
        except SourceUnavailable as error:
            return error.what
        except asyncio.CancelledError:
            polite = self.online
            if polite:
                self._client.disconnect()
            raise
        finally:
            for timer in keep_alive:
                timer.cancel()
            self.online = False
            self._link = None
            await link.close(polite=polite)

    async def _connect(self) -> SendingLink:
        """A TCP or TLS connection, nothing said on it yet. Raises SourceUnavailable."""
        spec, address = self._spec, self._address
        try:
            context = tls_context(spec)
            self._client.username_pw_set(spec.username or address.username or None, read_password(spec))
            async with asyncio.timeout(spec.connect_timeout):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: SendingLink(self, MOST_PACKET, spec.keep_alive),
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=(spec.server_name or address.host) if context else None,
                )
        except SpecError as error:  # a file that is being replaced, or not there yet
            raise SourceUnavailable(str(error)) from error
        except TimeoutError as error:
            raise SourceUnavailable(f"no connection within {spec.connect_timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(f"cannot connect: {error}") from error
        return link

    async def _accepted(self) -> None:
        assert self._connected is not None and self._lost is not None
        either: list[asyncio.Future[Any]] = [self._connected, self._lost]
        await asyncio.wait(either, timeout=self._spec.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._lost.done():
            raise SourceUnavailable(self._lost.result())
        if not self._connected.done():
            raise SourceUnavailable(f"the broker sent no CONNACK within {self._spec.connect_timeout:g} s")

    def _tick(self, handles: list[asyncio.TimerHandle]) -> None:
        """Let paho ping, four times per interval, so that a ping is never later than the broker's grace of a half."""
        self._client.loop_misc()
        handles.clear()
        if self._client.keepalive and self.online:
            later = asyncio.get_running_loop().call_later
            handles.append(later(self._client.keepalive / 4, self._tick, handles))

    # --- sending ----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Send what there is room for."""
        link = self._link
        while self.online and link is not None and not link.congested and self._has_room:
            parcel, self._next = self._next or self._outlet.take(), None
            if parcel is None:
                return
            mid = parcel.number % _IDS + 1
            if mid in self._in_flight:
                self._next = parcel
                return
            self._start(parcel, mid)

    @property
    def _has_room(self) -> bool:
        return len(self._in_flight) < self._window and (self._bytes < WINDOW_BYTES or not self._in_flight)

    def _start(self, parcel: Parcel, mid: int) -> None:
        message = parcel.message
        parcel.marks.append(("X-Headrace-Source", self.client_id))
        qos = min(message.qos, self._max_qos)
        if parcel.released and not self._forgotten:
            self._set_out(parcel, mid)
            self._write(packets.pubrel(mid))
            return
        parcel.released = False
        packet = self._packet(parcel, mid, again=parcel.again)
        if self._max_bytes and len(packet) > self._max_bytes:
            self._refused(parcel, "too_large", f"the broker takes packets of at most {self._max_bytes} bytes")
        elif qos == 0:
            self._write(packet)
            self._outlet.confirmed(parcel)
        else:
            self._set_out(parcel, mid)
            self._write(packet)

    def _set_out(self, parcel: Parcel, mid: int) -> None:
        self._in_flight[mid] = parcel
        self._bytes += parcel.size

    def _packet(self, parcel: Parcel, mid: int, *, again: bool) -> bytes:
        message = parcel.message
        if message.retain and not self._retains:
            message.retain = False
        qos = min(message.qos, self._max_qos)
        return packets.publish(message, mid, qos, parcel.marks, again=again, version=self._spec.version)

    def _write(self, packet: bytes) -> None:
        if self._link is not None:
            self._link.write(packet)

    def _send_again(self, session_present: bool) -> None:
        """What was on its way when the connection before this one broke."""
        for mid, parcel in list(self._in_flight.items()):
            if parcel.released and session_present:
                self._write(packets.pubrel(mid))
            else:  # a broker that has forgotten us has forgotten the message too, unless it was complete
                parcel.released = False
                self._write(self._packet(parcel, mid, again=True))

    # --- what the link calls ----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return False

    def on_publish(self, head: int, data: bytes, start: int, stop: int) -> None:
        """We have no subscriptions; what an earlier user of the session left is not for us."""

    def on_oversized(self, head: int, data: bytes, start: int) -> None:
        """As above."""

    def on_pubrel(self, mid: int) -> None:
        """As above."""

    def on_control(self, packet: bytes) -> None:
        answer = packets.read_answer(packet)
        if answer is None:
            self._client.handle(packet)
            return
        parcel = self._in_flight.get(answer.mid)
        if parcel is None:
            if answer.kind == packets.PUBREC:  # or it would ask for ever
                self._write(packets.pubrel(answer.mid))
            return
        if answer.reason >= 0x80 and answer.kind != packets.PUBCOMP:
            self._was_refused(answer, parcel)
        elif answer.kind == packets.PUBREC:
            self._received(answer.mid, parcel)
        else:
            self._settled(answer.mid, parcel)
            self._outlet.confirmed(parcel)
        self.fill()

    def _received(self, mid: int, parcel: Parcel) -> None:
        link = self._link

        def release() -> None:
            if self._link is link:  # else it was, or will be, sent by the next connection
                self._write(packets.pubrel(mid))

        self._outlet.hand_over(parcel, release)

    def _settled(self, mid: int, parcel: Parcel) -> None:
        del self._in_flight[mid]
        self._bytes -= parcel.size

    def _was_refused(self, answer: packets.Answer, parcel: Parcel) -> None:
        if answer.reason in packets.RETRY_LATER:
            self._end(f"the broker refuses messages: {packets.RETRY_LATER[answer.reason]}")
            if self._link is not None:
                self._link.abort()
            return
        self._settled(answer.mid, parcel)
        self._refused(parcel, "refused", f"the broker answered with reason {answer.reason:#x}")

    def _refused(self, parcel: Parcel, reason: str, why: str) -> None:
        self._outlet.log.warning("the broker does not take a message", topic=parcel.message.topic, reason=why)
        self._outlet.refused(parcel, reason)

    def on_lost(self, why: str) -> None:
        self._end(why)
        self._client.lost()

    def _end(self, why: str) -> None:
        """The connection is of no more use. The first reason given counts."""
        self.online = False
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    # --- what paho calls --------------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refused the connection: {reason}")
            return
        if self._spec.version == 5:
            self._window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        self._max_qos = getattr(properties, "MaximumQoS", 2)
        self._max_bytes = getattr(properties, "MaximumPacketSize", 0)
        self._retains = bool(getattr(properties, "RetainAvailable", 1))
        self._forgotten = self._forgotten or not flags.session_present
        self.online = True
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(None)
        self._send_again(flags.session_present)
        self._outlet.up(self._address.text)

    def _on_disconnect(self, client: Any, data: Any, flags: DisconnectFlags, reason: ReasonCode, props: Any) -> None:
        name = reason.getName()
        if not flags.is_disconnect_packet_from_server:
            self._end(REASONS.get(name, "connection lost"))
        elif reason.value == TAKEN_OVER:
            self._end("another client connected with our client id; give each its own clientID")
        else:
            self._end(f"the broker ended the connection: {reason}")
        if self._link is not None:
            self._link.abort()
