"""From message to event, from outcome to response."""

from __future__ import annotations

import pytest

from agent.model.event import NOW, Event, Outcome, Result
from agent.triggers.mqtt.events import event_of, response_of
from agent.triggers.mqtt.packets import Message, Properties


def request(*user: tuple[bytes, bytes], response_topic: bytes = b"") -> Message:
    properties = Properties()
    properties.user = list(user)
    properties.content_type = b"application/json"
    properties.response_topic = response_topic
    properties.correlation = b"\x01"
    return Message(2, 7, b"a/b", b"{}", properties)


def refused(name: str) -> None:
    raise AssertionError(f"{name} counted")


def test_event_has_nuclios_fields() -> None:
    event = event_of(Message(2, 7, b"a/b", b"body", None), "tcp://h:1883")
    assert event == Event(body=b"body", id=b"7", path=b"a/b", topic=b"a/b", url="tcp://h:1883")
    assert event_of(Message(0, 0, b"a", b"", None), "").id == b"0"


def test_properties_become_content_type_and_headers() -> None:
    event = event_of(request((b"x", b"1"), (b"x", b"2")), "")
    assert event.content_type == b"application/json"
    assert event.headers == [(b"x", b"1"), (b"x", b"2")]
    assert event.source == ""


def test_cloud_event_in_binary_mode() -> None:
    names = ((b"specversion", b"1.0"), (b"id", b"i"), (b"source", b"/s"), (b"type", b"t"))
    event = event_of(request(*names, (b"time", b"2020-01-01T00:00:00.5Z")), "")
    assert (event.id, event.source, event.type, event.version) == (b"i", b"/s", b"t", b"1.0")
    assert event.timestamp_ns == 1_577_836_800_500_000_000
    for time in (b"yesterday", b"2020-01-01T00:00:00", b"\xff"):
        assert event_of(request(*names, (b"time", time)), "").timestamp_ns == NOW
    assert event_of(request(*names), "", refused).timestamp_ns == NOW
    assert event_of(request(*names[:3]), "").id == b"7"


@pytest.mark.parametrize(
    "time", [b"9999-12-31T23:59:59Z", b"2262-04-11T23:47:17Z", b"1600-01-01T00:00:00Z", b"1969-12-31T23:59:59Z", b"no"]
)
def test_a_time_that_no_event_can_carry_is_counted(time: bytes) -> None:
    counted: list[str] = []
    names = ((b"specversion", b"1.0"), (b"id", b"i"), (b"source", b"/s"), (b"type", b"t"))
    event = event_of(request(*names, (b"time", time)), "", counted.append)
    assert (event.timestamp_ns, event.id, counted) == (NOW, b"i", ["times_ignored"])


def test_response_carries_correlation_and_status() -> None:
    outcome = Outcome(Result.REPLIED, 201, "text/plain", [("h", "v")], b"done")
    response = response_of(request(response_topic=b"r/1"), outcome)
    assert response is not None and (response.topic, response.body) == ("r/1", b"done")
    assert response.properties.CorrelationData == b"\x01"
    assert response.properties.ContentType == "text/plain"
    assert response.properties.UserProperty == [("status", "201"), ("h", "v")]


def test_errors_are_responses_too() -> None:
    for result, status in ((Result.TIMED_OUT, "408"), (Result.WORKER_DIED, "502"), (Result.NO_WORKER, "503")):
        response = response_of(request(response_topic=b"r"), Outcome(result))
        assert response is not None and response.properties.UserProperty == [("status", status)]


def test_no_response_unless_asked_or_when_never_started() -> None:
    assert response_of(request(), Outcome(Result.REPLIED, 200)) is None
    assert response_of(Message(0, 0, b"a", b"", None), Outcome(Result.REPLIED, 200)) is None
    assert response_of(request(response_topic=b"r"), Outcome(Result.STOPPED)) is None
