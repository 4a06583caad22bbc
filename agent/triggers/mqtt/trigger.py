"""MQTT trigger: one message in, one event out.

Why: MQTT is how most devices on a site speak, and the one network source here that can send again what was not handled.
Flow: broker -> link -> inbox -> sink -> function; its outcome -> acknowledgement, and with MQTT 5 a response.
Promise: at least once at QoS 1 and 2 (acknowledged after the handler succeeded), however often the broker, the network
or this process goes away; at most once at QoS 0. The README has the details.
"""

from __future__ import annotations

import asyncio

from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.triggers.mqtt.backoff import Backoff
from agent.triggers.mqtt.credentials import read_password, tls_context
from agent.triggers.mqtt.spec import MqttSpec
from agent.triggers.mqtt.subscriber import Subscriber

KICKS = 3
"""After so many short connections in a row the state names the likeliest reason; mosquitto itself gives none."""


@trigger(MqttSpec)
async def run(spec: MqttSpec, sink: Sink) -> None:
    """Connects for ever, until cancelled. Raises SpecError when a file the spec names cannot be used at the start."""
    read_password(spec)
    tls_context(spec)
    if spec.insecure_skip_verify:
        sink.log.warning("insecureSkipVerify: anybody can pose as this broker", broker=spec.address.text)
    backoff = Backoff(spec.reconnect_delay, spec.max_reconnect_delay)
    subscriber = Subscriber(spec, sink)
    try:
        while True:
            why = await subscriber.serve(backoff)
            delay_s = backoff.delay_s()
            if backoff.kicks >= KICKS:
                why += (
                    f", {KICKS} times soon after connecting: does another client use the id {subscriber.client_id!r}?"
                )
            sink.down(why)
            await asyncio.sleep(delay_s)
    finally:
        if not subscriber.closing:  # cancelled while there was no connection: nothing to acknowledge it with
            await sink.drained()
