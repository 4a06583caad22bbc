"""A message becomes an event, and an outcome a response.

MQTT 3.1.1 has a topic, an id and a body; MQTT 5 adds a content type, user properties as headers, and CloudEvents 1.0 in
binary mode: its attributes are user properties without a prefix.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from agent.model.event import LATEST_NS, NOW, Event, Outcome, Result
from agent.triggers.mqtt.client import properties_of
from agent.triggers.mqtt.packets import Message, Properties

STATUS = {
    Result.TIMED_OUT: 408,
    Result.WORKER_DIED: 502,
    Result.NO_WORKER: 503,
    Result.TOO_LARGE: 413,
}
Count = Callable[[str], None]
CLOUD_EVENT = (b"id", b"source", b"specversion", b"type")


def _uncounted(name: str) -> None:
    """For a caller without counters."""


def event_of(message: Message, url: str, count: Count = _uncounted) -> Event:
    """The event of one message, with nuclio's fields: id is the packet id as text ("0" at QoS 0), path is the topic.

    A CloudEvent's time that is none, or that no event can carry, is left out and counted as `times_ignored`.
    """
    topic = message.topic
    event = Event(body=message.body, path=topic, topic=topic, url=url, id=b"%d" % message.mid)
    if message.properties is not None:
        _add_properties(event, message.properties, count)
    return event


def _add_properties(event: Event, properties: Properties, count: Count) -> None:
    event.content_type = properties.content_type
    event.headers = properties.user
    named = dict(properties.user)
    if all(name in named for name in CLOUD_EVENT):
        event.id, event.source = named[b"id"], named[b"source"]
        event.type, event.version = named[b"type"], named[b"specversion"]
        if b"time" in named:
            event.timestamp_ns = _timestamp_ns(named[b"time"])
            if event.timestamp_ns == NOW:
                count("times_ignored")


def _timestamp_ns(text: bytes) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; NOW when it cannot be read or no event can carry it."""
    try:
        moment = datetime.datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return NOW
    if moment.tzinfo is None:
        return NOW
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    time_ns = ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    return time_ns if 0 <= time_ns <= LATEST_NS else NOW


class Response(NamedTuple):
    """What goes to the response topic of a request."""

    topic: str
    body: bytes
    properties: PahoProperties


def response_of(message: Message, outcome: Outcome) -> Response | None:
    """None when nobody asked, or the message was never started. Raises ValueError when the topic is not one."""
    asked = message.properties
    if asked is None or not asked.response_topic or outcome.result is Result.STOPPED:
        return None
    status = outcome.status or STATUS.get(outcome.result, 200)
    properties = properties_of(PacketTypes.PUBLISH, UserProperty=[("status", str(status)), *outcome.headers])
    if asked.correlation is not None:
        properties.CorrelationData = asked.correlation
    if outcome.content_type:
        properties.ContentType = outcome.content_type
    return Response(asked.response_topic.decode(), outcome.body, properties)
