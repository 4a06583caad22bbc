"""iceoryx2's Python binding: publish-subscribe of byte slices in shared memory.

A subscriber that finds nothing can poll, or sleep on iceoryx2's event service, for which the publisher then has to
notify with every message (it does not know whether somebody sleeps). Both are measured.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable
from typing import Any

from tests.bench.channel.peer import End, Peer, require

_SLOTS = 64  # samples a subscriber may have waiting


class Notified(Peer):
    """With a notification for each message, and a receiver that sleeps when there is none."""

    polls = False

    def __init__(self, size: int) -> None:
        self.note = require("iceoryx2", "iceoryx2")
        super().__init__(size)
        self._name = f"headrace-bench-{os.getpid()}"

    def near(self) -> End:
        return _IceoryxEnd(self._name, "there", "back", self.size, self.polls)

    def far(self) -> End:
        return _IceoryxEnd(self._name, "back", "there", self.size, self.polls)


class Polled(Notified):
    """Without notifications: the receiver looks again and again, which keeps a core busy while nothing comes."""

    polls = True


class _IceoryxEnd(End):
    def __init__(self, name: str, out: str, incoming: str, size: int, polls: bool) -> None:
        self._module: Any = importlib.import_module("iceoryx2")
        iceoryx2 = self._module
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        self._publisher = (
            self._samples(f"{name}/{out}").publisher_builder().initial_max_slice_len(max(size, 1)).create()
        )
        self._subscriber = self._samples(f"{name}/{incoming}").subscriber_builder().buffer_size(_SLOTS).create()
        self._notifier = self._events(f"{name}/{out}").notifier_builder().create()
        self._listener = self._events(f"{name}/{incoming}").listener_builder().create()
        self.send = self._sender(max(size, 1), polls)
        self.receive = self._receiver(polls)

    def _samples(self, name: str) -> Any:
        iceoryx2 = self._module
        service = self._node.service_builder(iceoryx2.ServiceName.new(name))
        kind = service.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        return kind.enable_safe_overflow(False).subscriber_max_buffer_size(_SLOTS).open_or_create()

    def _events(self, name: str) -> Any:
        return self._node.service_builder(self._module.ServiceName.new(name)).event().open_or_create()

    def _sender(self, room: int, polls: bool) -> Callable[[bytes], object]:
        loan, notify, move = self._publisher.loan_slice_uninit, self._notifier.notify, ctypes.memmove

        def send(body: bytes) -> None:
            delivered = 0
            while not delivered:  # until both sides have opened their connection it goes to nobody
                sample = loan(len(body) or 1)
                move(sample.payload_ptr, body, len(body))
                delivered = sample.assume_init().send()
            if not polls:
                notify()

        return send

    def _receiver(self, polls: bool) -> Callable[[], bytes]:
        take, wait, size = self._subscriber.receive, self._listener.blocking_wait, self._publisher.initial_max_slice_len

        def receive() -> bytes:
            while (sample := take()) is None:
                if not polls:
                    wait()
            body = ctypes.string_at(sample.payload_ptr, size)
            sample.delete()
            return body

        return receive
