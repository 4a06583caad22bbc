"""MQTT binding: what a function publishes, delivered to a broker.

Why: a function says `context.publish("cloud", reading)` and need not know whether there is a link.
Flow: outbox -> outlet -> [mqtt binding] -> broker.
Promise: removed from the outbox when the broker has acknowledged it; the README has the details.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from agent.model.describe import nearest
from agent.model.duration import parse_duration
from agent.model.outlet import Outlet
from agent.model.registry import binding
from agent.model.spec import Binding, Duration, TriggerSpec
from agent.triggers.mqtt.backoff import Backoff
from agent.triggers.mqtt.identity import device_digest
from agent.triggers.mqtt.spec import MqttSpec, Subscription, check_topic
from bindings.mqtt.sender import Sender

KICKS = 3
"""After so many short connections in a row the state names the likeliest reason; mosquitto itself gives none."""

MACHINE_ID = Path("/etc/machine-id")

KEYS = (
    *("client_id", "protocol_version", "password_file", "clean_session", "session_expiry", "keep_alive"),
    *("connect_timeout", "reconnect_delay", "max_reconnect_delay", "ca_file", "cert_file", "key_file", "server_name"),
    *("insecure_skip_verify",),
)
"""Of the mqtt trigger: those that are about the connection."""

_NAMES = {item.encode_name: item for item in msgspec.structs.fields(MqttSpec) if item.name in KEYS}
_NOTHING = [Subscription(topic="$SYS")]  # never subscribed: a trigger without a subscription would be of no use


def connection_of(spec: Binding | TriggerSpec) -> MqttSpec:
    """How to reach the broker. Raises ValueError whose text begins with the key that is wrong."""
    if isinstance(spec, MqttSpec):
        return replace(spec, client_id=f"{spec.client_id}-outbox" if spec.client_id else "", will=None)
    assert isinstance(spec, Binding)
    values = {_field(name): _value(name, value) for name, value in spec.attributes.items()}
    given = {"kind": spec.kind, "name": spec.name, "url": spec.url} | values
    return MqttSpec(username=spec.username, password=spec.password, subscriptions=_NOTHING, **given)


def _field(name: str) -> str:
    known = {key.lower(): item.name for key, item in _NAMES.items()}
    if name.lower() not in known:
        near = nearest(name, _NAMES)
        raise ValueError(
            f"attributes: no key {name!r}; " + (f"did you mean {near!r}?" if near else f"known: {_list()}")
        )
    return known[name.lower()]


def _list() -> str:
    return ", ".join(_NAMES)


def _value(name: str, value: Any) -> Any:
    item = next(item for key, item in _NAMES.items() if key.lower() == name.lower())
    try:
        return msgspec.convert(value, item.type, dec_hook=_duration)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"attributes: {item.encode_name}: {error}") from None


def _duration(kind: type, value: Any) -> Any:
    if kind is Duration and isinstance(value, str):
        return parse_duration(value)
    raise ValueError('expected a duration such as "10s"')


def check(spec: Binding) -> None:
    """Raises ValueError for what cannot be used."""
    connection_of(spec)
    if spec.topic:
        check_topic(spec.topic, "topic")


@binding(check)
async def deliver(spec: Binding | TriggerSpec, outlet: Outlet) -> None:
    """Connects for ever, until cancelled."""
    connection = connection_of(spec)
    if not outlet.durable:  # nothing outlives this process, so its session need not
        connection = replace(connection, clean_session=True)
    client_id = connection.client_id or f"headrace-{outlet.function}-{outlet.name}-outbox-{device_digest(MACHINE_ID)}"
    sender = Sender(connection, outlet, client_id if outlet.durable else f"{client_id}-{os.getpid()}")
    backoff = Backoff(connection.reconnect_delay, connection.max_reconnect_delay)
    while True:
        why = await sender.serve(backoff)
        delay_s = backoff.delay_s()
        if backoff.kicks >= KICKS:
            why += f", {KICKS} times soon after connecting: does another client use the id {sender.client_id!r}?"
        outlet.down(why)
        await asyncio.sleep(delay_s)
