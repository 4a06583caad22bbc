"""One connection to the broker: bytes from asyncio in, whole packets out, and the brake between them.

Flow: transport -> [link] -> receiver. asyncio owns the socket, so name lookup, connecting and TLS never block the loop,
and one read brings as many packets as have arrived instead of a third of one.

The brake: when the receiver is full the link keeps what it has, stops reading the socket, and asks `pump` to wait for
room. The broker then meets a full TCP window. It also lets go of the loop after PACKETS_PER_TURN packets, so that a
flood leaves time for everything else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from agent.triggers.mqtt.packets import PUBLISH, PUBREL, Malformed, read_varint

PACKETS_PER_TURN = 256
CLOSE_S = 2.0
"""How long a connection may take to close before it is cut."""


class Receiver(Protocol):
    """Who the packets are for."""

    @property
    def full(self) -> bool:
        """Take no further PUBLISH now."""

    def on_publish(self, head: int, data: bytes, start: int, stop: int) -> None:
        """A PUBLISH: its first byte, and where its variable header starts and its payload ends in `data`."""

    def on_oversized(self, head: int, data: bytes, start: int) -> None:
        """A PUBLISH larger than allowed: only its head is in `data`; the rest is thrown away as it arrives."""

    def on_pubrel(self, mid: int) -> None:
        """The sender of a QoS 2 message forgets it."""

    def on_control(self, packet: bytes) -> None:
        """Any other packet, whole."""

    def on_lost(self, why: str) -> None:
        """The connection is gone, or what it says makes no sense."""


class Link(asyncio.Protocol):
    """One TCP or TLS connection. Made by `loop.create_connection`; closed by `close`."""

    def __init__(self, receiver: Receiver, max_packet: int, user_timeout_s: float) -> None:
        self._receiver = receiver
        self._max_packet = max_packet
        self._user_timeout_s = user_timeout_s
        self._transport: asyncio.Transport | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._at = 0  # where to go on in the first of `_kept`: a stop costs no copy of what is behind it
        self._needed = 0  # bytes before the packet at the head of `_kept` is whole
        self._skip = 0  # bytes of an oversized packet still to be thrown away
        self._turn: asyncio.Handle | None = None
        self._held = asyncio.Event()
        self._gone = asyncio.Event()
        self.congested = False

    @property
    def held(self) -> bool:
        """Reading has stopped because the receiver is full."""
        return self._held.is_set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        opened = transport.get_extra_info("socket")
        if opened is not None and self._user_timeout_s:
            # A peer that vanished shows only as unacknowledged data, which the kernel would resend for minutes.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._user_timeout_s * 1000))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._gone.set()
        self._receiver.on_lost(f"connection lost: {error}" if error else "the broker closed the connection")

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False

    def write(self, data: bytes) -> None:
        """Send; without effect once the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._kept:
            self._kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes < self._needed or self.held or self._turn:
                return
            self._read_kept()
        else:
            self._read(data, 0)

    async def pump(self, room: Callable[[], Awaitable[None]]) -> None:
        """Runs beside the connection: whenever the receiver is full, waits for `room` and goes on reading."""
        while True:
            await self._held.wait()
            await room()
            self.go_on()

    def go_on(self) -> None:
        """Read again what is kept, then the socket."""
        self._held.clear()
        self._turn = None
        if self._transport is None:
            return
        if self._kept:
            self._read_kept()
        if not self.held and not self._turn and self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection: nothing more is read from it."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self, *, polite: bool = False) -> None:
        """Ends the connection. `polite`: everything written has to arrive, so the broker is to close first; closing
        with bytes unread would reset the connection and could destroy them on their way.
        """
        if polite and self._transport is not None:
            await self._wait_gone()
        if self._turn:
            self._turn.cancel()
        if self._transport is not None:
            self._transport.close()
            await self._wait_gone()
        if self._transport is not None:
            self.abort()
            await self._gone.wait()

    async def _wait_gone(self) -> None:
        try:
            await asyncio.wait_for(self._gone.wait(), CLOSE_S)
        except TimeoutError:
            return

    def _read_kept(self) -> None:
        data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        at = self._at
        self._kept.clear()
        self._kept_bytes = self._needed = self._at = 0
        self._read(data, at)

    def _keep(self, data: bytes, needed: int) -> None:
        if data:
            self._kept.append(data)
            self._kept_bytes += len(data)
        self._needed = needed

    def _read(self, data: bytes, pos: int) -> None:
        try:
            self._read_packets(data, pos)
        except Malformed as error:
            self._receiver.on_lost(f"the broker broke the protocol: {error}")
            self.abort()

    def _read_packets(self, data: bytes, pos: int) -> None:
        end = len(data)
        if self._skip:
            pos = min(self._skip, end)
            self._skip -= pos
        turns = PACKETS_PER_TURN
        receiver = self._receiver
        while end - pos >= 2:
            head = data[pos]
            size = data[pos + 1]
            start = pos + 2
            if size > 127:
                size, start = read_varint(data, pos + 1, end)
                if start < 0:
                    break
            stop = start + size
            if stop > end:
                self._await_rest(head, data, pos, start, stop)
                return
            if head & 0xF0 == PUBLISH:
                if turns == 0 or receiver.full:
                    self._stop(data, pos, for_room=turns != 0)
                    return
                turns -= 1
                receiver.on_publish(head, data, start, stop)
            elif head & 0xF0 == PUBREL:
                receiver.on_pubrel(_mid_of(data, start, stop))
            else:
                receiver.on_control(data[pos:stop])
                if self._transport is None or self._transport.is_closing():
                    return
            pos = stop
        self._keep(data[pos:], 0)

    def _await_rest(self, head: int, data: bytes, pos: int, start: int, stop: int) -> None:
        """The packet at `pos` is not whole. One that is too large is dropped as it arrives, once its head is here."""
        if stop - pos <= self._max_packet:
            self._keep(data[pos:], stop - pos)
            return
        if head & 0xF0 != PUBLISH:
            raise Malformed("a control packet larger than maxPacketBytes")
        have = len(data) - start
        topic_bytes = data[start] << 8 | data[start + 1] if have >= 2 else 0
        if have < 2 + topic_bytes + 2:
            self._keep(data[pos:], start - pos + 2 + topic_bytes + 2)
            return
        self._skip = stop - len(data)
        self._receiver.on_oversized(head, data, start)

    def _stop(self, data: bytes, pos: int, *, for_room: bool) -> None:
        self._keep(data, 0)
        self._at = pos
        assert self._transport is not None
        self._transport.pause_reading()
        if for_room:
            self._held.set()
        else:
            self._turn = asyncio.get_running_loop().call_soon(self.go_on)


def _mid_of(data: bytes, start: int, stop: int) -> int:
    if stop - start < 2:
        raise Malformed("PUBREL without a packet id")
    return data[start] << 8 | data[start + 1]
