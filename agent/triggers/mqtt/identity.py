"""The client id: stable, so that the broker finds our session again, and different on every device, because two clients
with one id throw each other out for ever.
"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

from agent.model.sink import Sink
from agent.triggers.mqtt.spec import MqttSpec


def client_id_of(spec: MqttSpec, sink: Sink, machine_id: Path = Path("/etc/machine-id")) -> str:
    """The given one, else `headrace-<function>-<trigger>-<eight characters of this device>`."""
    return spec.client_id or f"headrace-{sink.function}-{sink.name}-{device_digest(machine_id)}"


def device_digest(machine_id: Path) -> str:
    """Eight hexadecimal characters. A digest, because the machine id itself is not to be shown on a network."""
    try:
        known = machine_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    return hashlib.sha256(f"headrace:{known or socket.gethostname()}".encode()).hexdigest()[:8]
