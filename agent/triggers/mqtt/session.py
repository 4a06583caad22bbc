"""Opening an MQTT session and keeping its subscriptions: CONNECT, SUBSCRIBE, and what the broker says to them.

A broker's refusal is not an error of ours: it is a state to show and to try again. A connection whose subscriptions
were refused stays open for those that were granted, shows "connected but not subscribed", and asks again.

When it subscribes: at every connect, except with MQTT 3.1.1 when the broker still has the session that this very
process has subscribed. There every SUBSCRIBE makes the broker send its retained messages again, after each short loss
of the network; MQTT 5 can be told not to ("only if the subscription is new"), so there it costs nothing to be sure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.model.errors import SourceUnavailable
from agent.model.sink import Sink
from agent.triggers.mqtt.backoff import Backoff
from agent.triggers.mqtt.client import Client, properties_of
from agent.triggers.mqtt.inbox import Inbox
from agent.triggers.mqtt.link import Link
from agent.triggers.mqtt.outbox import Outbox
from agent.triggers.mqtt.remembered import Remembered
from agent.triggers.mqtt.spec import MqttSpec, Subscription

TAKEN_OVER = 142
PROTOCOL_ERROR = "Protocol error"
REASONS = {
    "Keep alive timeout": "the broker did not answer a ping",
    PROTOCOL_ERROR: "the broker broke the protocol",
}


class Session:
    """The MQTT session of one trigger, over all its connections."""

    def __init__(self, spec: MqttSpec, sink: Sink, client: Client, inbox: Inbox, outbox: Outbox) -> None:
        self._spec, self._sink, self._client = spec, sink, client
        self._inbox, self._outbox = inbox, outbox
        self._every = frozenset(item.topic for item in spec.subscriptions)
        self._remembered = Remembered(sink.state_dir, spec.address.text, client.client_id)
        self._link: Link | None = None
        self._lost: asyncio.Future[str] | None = None
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._subscribed = False  # everything, by this process, in the session that the broker has
        self._seen = False  # this process has been connected before
        self.connected = False
        self._configure()

    def _configure(self) -> None:
        client, spec = self._client, self._spec
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_unsubscribe = self._on_subscribe, self._on_unsubscribe
        client.max_inflight_messages_set(0)  # the outbox keeps the window
        if spec.will:
            client.will_set(spec.will.topic, spec.will.payload, spec.will.qos, spec.will.retain)
        properties = None
        if spec.version == 5:
            properties = properties_of(
                PacketTypes.CONNECT,
                SessionExpiryInterval=0 if spec.clean_session else min(round(spec.session_expiry), 0xFFFFFFFF),
                ReceiveMaximum=spec.receive_maximum,
                MaximumPacketSize=spec.max_packet_bytes,
            )
        client.connect_async(
            spec.address.host,
            spec.address.port,
            round(spec.keep_alive),
            clean_start=spec.clean_session,
            properties=properties,
        )

    def begin(self) -> None:
        """Before a connection is made."""
        self._lost = asyncio.get_running_loop().create_future()

    async def open(self, link: Link) -> bool:
        """CONNECT on a fresh link; true when the broker still had our session. Raises SourceUnavailable."""
        self._link = link
        present = bool(await self._ask("CONNACK", lambda: self._client.open(link.write)))
        self._subscribed = self._subscribed and present
        if self._seen and not present and not self._spec.clean_session:
            self._sink.count("sessions_lost")
            self._sink.log.warning("the broker has forgotten our session and what it held for us")
        self._seen = True
        return present

    async def keep_subscribed(self, present: bool, backoff: Backoff) -> str:
        """Subscribes, and stays until the connection is gone; the reason. Raises SourceUnavailable."""
        assert self._lost is not None
        again = Backoff(self._spec.reconnect_delay, self._spec.max_reconnect_delay)
        refused: dict[str, str] = {}
        if not (self._subscribed and self._spec.version == 4):
            await self._forget_stale(present)
            refused = await self._subscribe(self._spec.subscriptions)
        if self._spec.birth:
            self._outbox.announce(self._spec.birth)
        while True:
            self._show(refused, backoff)
            await asyncio.wait((self._lost,), timeout=again.delay_s() if refused else None)
            if self._lost.done():
                return self._lost.result()
            refused = await self._subscribe([item for item in self._spec.subscriptions if item.topic in refused])

    def lost(self, why: str) -> None:
        """The link is gone, or of no more use. The first reason given counts."""
        self.connected = False
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    def ended(self) -> None:
        """The link is not to be used any more."""
        self.connected = False
        self._link = self._lost = None
        self._answers.clear()

    def _show(self, refused: dict[str, str], backoff: Backoff) -> None:
        self._subscribed = not refused
        if refused:
            listed = ", ".join(f"{topic} ({why})" for topic, why in refused.items())
            self._sink.down(f"connected but not subscribed: {listed}")
            return
        self._sink.up(self._spec.address.text)
        backoff.up()

    async def _forget_stale(self, present: bool) -> None:
        """Unsubscribe what an earlier version of the function left in the session."""
        if self._spec.clean_session:
            return
        stale = sorted(self._remembered.filters - self._every) if present else []
        # Before SUBSCRIBE, so that whatever happens then, the next version knows every filter the broker may hold.
        await self._remember(self._every.union(stale))
        if stale:
            await self._ask("UNSUBACK", lambda: self._client.unsubscribe(stale))
            await self._remember(self._every)

    async def _remember(self, filters: frozenset[str]) -> None:
        try:
            await asyncio.to_thread(self._remembered.save, filters)
        except OSError as error:
            self._sink.log.warning("subscriptions cannot be remembered", why=error.strerror)

    async def _subscribe(self, wanted: list[Subscription]) -> dict[str, str]:
        """SUBSCRIBE; the filters that were refused, and why."""
        requests = [(item.topic, SubscribeOptions(item.qos, retainHandling=1)) for item in wanted]
        plain = [(item.topic, item.qos) for item in wanted]
        codes = await self._ask(
            "SUBACK", lambda: self._client.subscribe(requests if self._spec.version == 5 else plain)
        )
        if len(codes) != len(wanted):
            raise SourceUnavailable(f"the broker answered {len(codes)} of {len(wanted)} subscriptions")
        for item, code in zip(wanted, codes, strict=True):
            if not code.is_failure and code.value < item.qos:
                self._sink.log.warning("broker grants a lower qos", topic=item.topic, qos=item.qos, granted=code.value)
        return {item.topic: str(code) for item, code in zip(wanted, codes, strict=True) if code.is_failure}

    async def _ask(self, answer: str, send: Callable[[], Any]) -> Any:
        """Send, and wait for the answer; raises SourceUnavailable when the connection ends or `connectTimeout` passes.

        Time during which reading is held back does not count: the answer may be behind messages there is no room for.
        """
        assert self._lost is not None and self._link is not None
        future = self._answers[answer] = asyncio.get_running_loop().create_future()
        send()
        while not future.done():
            await asyncio.wait((future, self._lost), timeout=self._spec.connect_timeout, return_when="FIRST_COMPLETED")
            if self._lost.done():
                raise SourceUnavailable(self._lost.result())
            if not future.done() and not self._link.held:
                raise SourceUnavailable(f"the broker sent no {answer} within {self._spec.connect_timeout:g} s")
        return future.result()

    def _answered(self, answer: str, value: Any) -> None:
        future = self._answers.get(answer)
        if future is not None and not future.done():
            future.set_result(value)

    # What paho calls

    def _on_connect(self, client: Any, data: Any, flags: ConnectFlags, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self.lost(f"the broker refused the connection: {reason}")
            return
        assert self._link is not None
        self.connected = True
        # At once, not when somebody wakes up: the next packet in the same read may be a message.
        self._inbox.opened(self._link.write, session_present=flags.session_present)
        self._outbox.connected(properties)
        self._answered("CONNACK", flags.session_present)

    def _on_disconnect(self, client: Any, data: Any, flags: DisconnectFlags, reason: ReasonCode, props: Any) -> None:
        name = reason.getName()
        if not flags.is_disconnect_packet_from_server:
            self.lost(REASONS.get(name, "connection lost"))
            if name == PROTOCOL_ERROR and self._link is not None:
                self._link.abort()
        elif reason.value == TAKEN_OVER:
            self.lost("another client connected with our client id; give each its own clientID")
        else:
            self.lost(f"the broker ended the connection: {reason}")

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        self._answered("SUBACK", codes)

    def _on_unsubscribe(self, client: Any, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        self._answered("UNSUBACK", codes)
