"""paho-mqtt without its socket and its thread: packets go in and come out, the loop stays ours.

paho's `Client` keeps what is session: CONNECT and its answer, SUBSCRIBE, keep-alive, will, our own publishes with their
QoS handshakes, resending them after a reconnect. It is driven through its documented `loop_*` calls.

The one private name used is `Client._create_socket`, overridden to hand paho a pipe in memory instead of a connection.
`tests/unit/triggers/mqtt/test_client.py` pins what we rely on: a paho release that changes it fails there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties


def properties_of(packet_type: int, **values: Any) -> Properties:
    """MQTT 5 properties for one type of packet (`paho.mqtt.packettypes`)."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has no types there
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def packed_size(properties: Properties | None) -> int:
    """Bytes that properties take in a packet."""
    return len(properties.pack()) if properties else 0  # type: ignore[no-untyped-call]  # paho has no types there


class Pipe:
    """What paho takes for its non-blocking socket."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], None] | None = None
        self._incoming = b""
        self._pos = 0
        self._ended = False

    def open(self, write: Callable[[bytes], None]) -> None:
        """Forget the last connection; what paho sends goes to `write`."""
        self.write, self._incoming, self._pos, self._ended = write, b"", 0, False

    def feed(self, packet: bytes) -> None:
        """Let paho read one packet."""
        self._incoming, self._pos = packet, 0

    def end(self) -> None:
        """Let paho read end-of-file."""
        self._ended = True

    def recv(self, buffer_size: int) -> bytes:
        pos = self._pos
        data = self._incoming[pos : pos + buffer_size]
        if not data and not self._ended:
            raise BlockingIOError
        self._pos = pos + len(data)
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        if self.write is not None:
            self.write(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        """The link is closed by its owner, which learns of this from `on_disconnect`."""
        self.write = None

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """Never blocks anyway."""


class Client(paho.Client):
    """A paho client that somebody else feeds."""

    def __init__(self, client_id: str, version: int, clean_session: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_session if version == 4 else None,
            protocol=MQTTProtocolVersion(version),
            reconnect_on_failure=False,
        )
        self.client_id = client_id
        self.pipe = Pipe()

    def _create_socket(self) -> Pipe:
        return self.pipe

    def open(self, write: Callable[[bytes], None]) -> None:
        """Start a session on a fresh connection: sends CONNECT."""
        self.pipe.open(write)
        self.reconnect()

    def handle(self, packet: bytes) -> None:
        """One packet from the broker; what paho answers is written before this returns."""
        self.pipe.feed(packet)
        self.loop_read()
        if self.want_write():
            self.loop_write()

    def lost(self) -> None:
        """The connection is gone; `on_disconnect` follows unless paho knew."""
        self.pipe.end()
        self.loop_read()
