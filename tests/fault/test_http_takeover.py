"""Two processes on one listening socket under load, with bare listeners."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_http import CHILD, HELLO
from tests.support.eventually import eventually
from tests.support.http_client import RawClient


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_no_request_fails_while_processes_take_over(loop: str, tmp_path: Path) -> None:
    """Two processes on one socket; one leaves under load, every request of every client is answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        port = listening.getsockname()[1]

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", CHILD, loop, str(listening.fileno())]
            return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])

        children = [start(), start()]
        stopping = asyncio.Event()
        answered = 0

        async def load() -> None:
            nonlocal answered
            while not stopping.is_set():
                async with RawClient(port) as client:
                    for _ in range(50):
                        reply = await client.ask(HELLO)
                        assert reply.status == 200
                        answered += 1
                        if reply.headers.get("connection") == "close":
                            break

        async def swap() -> None:
            await eventually(lambda: answered > 500, within_s=30)
            children[0].stdin.close()  # type: ignore[union-attr]
            await eventually(lambda: children[0].poll() is not None, within_s=30)
            before = answered
            await eventually(lambda: answered > before + 200, within_s=30)
            stopping.set()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(load())
            tasks.create_task(swap())
        children[1].stdin.close()  # type: ignore[union-attr]
        assert [await asyncio.to_thread(child.wait, 20) for child in children] == [0, 0]
