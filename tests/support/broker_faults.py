"""Brokers that misbehave: a proxy that cuts, and a stub that answers whatever it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType

CONNACK = b"\x20\x02\x00\x00"


class _Server:
    """Listens on a free port of loopback; use as an async context manager."""

    def __init__(self) -> None:
        self.port = 0
        self.connections: list[float] = []  # when each was accepted, on the monotonic clock
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> _Server:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def connected(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    def cut(self) -> None:
        """Reset every connection at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(time.monotonic())
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Proxy(_Server):
    """Between a client and a real broker. `cut()` resets; `cut_after` resets once that many more bytes came down."""

    def __init__(self, broker_port: int) -> None:
        super().__init__()
        self._broker_port = broker_port
        self.cut_after: int | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers.add(to_broker)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, to_broker, down=False))
                tasks.create_task(self._copy(upstream, writer, down=True))
        except* (OSError, EOFError):
            pass
        finally:
            to_broker.transport.abort()
            self._writers.discard(to_broker)
            with contextlib.suppress(OSError):
                await to_broker.wait_closed()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, down: bool) -> None:
        while data := await source.read(65536):
            if down and self.cut_after is not None:
                data, self.cut_after = data[: self.cut_after], self.cut_after - len(data)
                if self.cut_after <= 0:
                    self.cut_after = None
                    target.write(data)
                    await target.drain()
                    raise EOFError
            target.write(data)
            await target.drain()
        raise EOFError


class StubBroker(_Server):
    """Answers CONNECT with `connack` (nothing and a close when empty), SUBSCRIBE with what `suback` makes of packet id
    and number of filters (no answer when None); closes right after CONNACK when `kick`.
    """

    def __init__(
        self,
        *,
        connack: bytes = CONNACK,
        suback: Callable[[bytes, int], bytes | None] | None = None,
        kick: bool = False,
    ) -> None:
        super().__init__()
        self.connack, self.kick = connack, kick
        self.suback = suback or granted
        self.packets: list[bytes] = []  # whatever came after CONNECT
        self._current: asyncio.StreamWriter | None = None

    def send(self, packet: bytes) -> None:
        """To the client that is connected now."""
        assert self._current is not None
        self._current.write(packet)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.connack:
            return
        await read_packet(reader)
        writer.write(self.connack)
        self._current = writer
        if self.kick:
            await writer.drain()
            writer.close()
            return
        while True:
            packet = await read_packet(reader)
            self.packets.append(packet)
            if packet[0] == 0xE0:
                return
            if packet[0] == 0x82:
                answer = self.suback(packet[2:4], packet.count(b"stub/"))
                if answer is not None:
                    writer.write(answer)


def granted(mid: bytes, filters: int) -> bytes:
    """A SUBACK that grants QoS 1 to every filter."""
    return suback(mid, *[1] * filters)


def suback(mid: bytes, *codes: int) -> bytes:
    return bytes([0x90, 2 + len(codes)]) + mid + bytes(codes)


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """One packet with a length below 128 bytes of varint per step, as small clients send them."""
    packet = await reader.readexactly(1)
    size, shift = 0, 0
    while True:
        byte = await reader.readexactly(1)
        packet += byte
        size |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return packet + await reader.readexactly(size)
