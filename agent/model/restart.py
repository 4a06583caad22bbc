"""Reads `platform`: free-form for containers, but its restart policy means the same on a device."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.model.decode import FAILED, Decoder
from agent.model.positions import Node, to_plain
from agent.model.spec import RestartPolicy


def decode_platform(decoder: Decoder, node: Node, path: str) -> Any:
    """The mapping as written, with `attributes.restartPolicy` checked and spelled as `FunctionSpec` looks for it."""
    plain = to_plain(node) or {}
    if not isinstance(plain, dict):
        return decoder.wrong(node, dict, path)
    attributes = node.get("attributes")
    policy = attributes.get("restartPolicy") if attributes else None
    if policy is None or policy.value is None:
        return plain
    read = decoder.struct(policy, RestartPolicy, f"{path}.attributes.restartPolicy")
    if read is FAILED:
        return FAILED
    rest = {name: value for name, value in plain.items() if name.lower() != "attributes"}
    return rest | {"attributes": {"restartPolicy": msgspec.to_builtins(read)}}
