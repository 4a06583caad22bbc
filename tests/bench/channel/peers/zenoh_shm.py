"""eclipse-zenoh between two sessions on this machine, bodies in its shared memory, heads over a unix socket."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.channel.peer import End, Peer, require

_POOL = 64 << 20
_CONNECT_S = 5.0


class Zenoh(Peer):
    """Peer mode without scouting, shared memory on, congestion blocks (so that nothing is dropped)."""

    def __init__(self, size: int) -> None:
        self.note = require("zenoh", "eclipse-zenoh")
        super().__init__(size)
        self._before = _pools()
        self._folder = tempfile.TemporaryDirectory()
        self._address = f"unixsock-stream/{os.path.join(self._folder.name, 'link')}"

    def near(self) -> End:
        return _ZenohEnd("connect", self._address, "there", "back", self.size)

    def far(self) -> End:
        return _ZenohEnd("listen", self._address, "back", "there", self.size)

    def close(self) -> None:
        self._folder.cleanup()
        for left in _pools() - self._before:  # 64 MiB each, which zenoh removes when it is started the next time
            left.unlink(missing_ok=True)


def _pools() -> set[Path]:
    return set(Path("/dev/shm").glob("*.zenoh"))


class _ZenohEnd(End):
    def __init__(self, way: str, address: str, out: str, incoming: str, size: int) -> None:
        zenoh: Any = importlib.import_module("zenoh")
        config = zenoh.Config()
        for key, value in (
            ("mode", "peer"),
            ("scouting/multicast/enabled", False),
            ("listen/endpoints", [address] if way == "listen" else []),
            ("connect/endpoints", [address] if way == "connect" else []),
            ("transport/shared_memory/enabled", True),
        ):
            config.insert_json5(key, json.dumps(value))
        self._session: Any = zenoh.open(config)
        self._incoming: Any = self._session.declare_subscriber(f"bench/{incoming}")
        self._publisher = self._session.declare_publisher(
            f"bench/{out}", congestion_control=zenoh.CongestionControl.BLOCK
        )
        self._provider: Any = zenoh.shm.ShmProvider.default_backend(_POOL)
        self._policy: Any = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())
        self._connects = way == "connect"
        self.send = self._sender()
        self.receive = self._receiver()
        if self._connects:
            self._wait_for_the_other()

    def _wait_for_the_other(self) -> None:
        until = time.monotonic() + _CONNECT_S
        while not self._publisher.matching_status.matching:
            if time.monotonic() > until:
                raise TimeoutError("the two sessions did not find each other")
            time.sleep(0.01)

    def _sender(self) -> Callable[[bytes], object]:
        put, alloc, policy = self._publisher.put, self._provider.alloc, self._policy

        def send(body: bytes) -> None:
            if not body:  # nothing to share
                put(body)
                return
            shared = alloc(len(body), policy)
            shared[:] = body
            put(shared)

        return send

    def _receiver(self) -> Callable[[], bytes]:
        recv = self._incoming.recv
        return lambda: recv().payload.to_bytes()

    def close(self) -> None:
        self._session.close()
