"""A unix socket, as a stream with a length before each message and as a sequence of packets."""

from __future__ import annotations

import socket
import struct

from tests.bench.channel.peer import End, Peer, Unfit

_LENGTH = struct.Struct("<I")
_JOINED = 65536  # up to here one send of length and body together beats two pointers


class Stream(Peer):
    """SOCK_STREAM: `sendall` of length and body, read through a buffer, so small messages share a system call."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def near(self) -> End:
        return _StreamEnd(self._near)

    def far(self) -> End:
        return _StreamEnd(self._far)


class _StreamEnd(End):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=65536)

    def send(self, body: bytes) -> None:
        if len(body) <= _JOINED:
            self._sock.sendall(_LENGTH.pack(len(body)) + body)
        else:
            self._sock.sendall(_LENGTH.pack(len(body)))
            self._sock.sendall(body)

    def receive(self) -> bytes:
        (length,) = _LENGTH.unpack(self._file.read(4))
        body: bytes = self._file.read(length)
        return body


class Packets(Peer):
    """SOCK_SEQPACKET: one `send`, one `recv`; a message is at most the socket's buffer."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        most = self._near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        if size > most // 2:
            raise Unfit(f"a packet is at most what the socket's buffer holds ({most} bytes)")

    def near(self) -> End:
        return _packet_end(self._near, self.size)

    def far(self) -> End:
        return _packet_end(self._far, self.size)


def _packet_end(sock: socket.socket, size: int) -> End:
    end, most = End(), max(size, 1)
    end.send = sock.send
    end.receive = lambda: sock.recv(most)
    return end
