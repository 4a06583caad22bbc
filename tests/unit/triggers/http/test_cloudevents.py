"""CloudEvents 1.0 and 0.1, structured and binary."""

import base64
import json
from typing import Any

import pytest

from agent.model.event import NOW, Event
from agent.triggers.http import cloudevents
from agent.triggers.http.request import Refusal

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
STRUCTURED = b"application/cloudevents+json; charset=utf-8"


def structured(members: Any, content_type: bytes = STRUCTURED) -> Event:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    event = Event(body=body, content_type=content_type, headers=[(b"Host", b"x")])
    cloudevents.unwrap(event, {b"content-type": content_type})
    return event


def binary(headers: dict[bytes, bytes]) -> Event:
    event = Event(body=b"data", content_type=b"text/plain", headers=[*headers.items()])
    cloudevents.unwrap(event, headers)
    return event


def test_structured_1_0() -> None:
    members = REQUIRED | {"time": "2018-04-05T17:31:00.5Z", "subject": "s", "traceparent": "00-a", "n": 5, "b": True}
    event = structured(members | {"data": {"a": [1]}})
    assert (event.id, event.source, event.type, event.version, event.type_version) == ("1", "/s", "t", "1.0", "")
    assert event.timestamp_ns == 1_522_949_460_500_000_000
    assert (event.body, event.json_body, event.content_type) == (b'{"a": [1]}', True, "application/json")
    extensions = [("ce-subject", "s"), ("ce-traceparent", "00-a"), ("ce-n", "5"), ("ce-b", "true")]
    assert event.headers == [(b"Host", b"x"), *extensions]


@pytest.mark.parametrize(
    ("members", "body", "json_body"),
    [
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", False),
        ({"data": "text", "datacontenttype": "application/json"}, b'"text"', True),
        ({"data": "text"}, b'"text"', True),
        ({"data": {"a": 1}, "datacontenttype": "text/xml"}, b'{"a": 1}', True),
        ({"data": {"a": 1}, "datacontenttype": "application/x+json"}, b'{"a": 1}', True),
        ({"data": 12}, b"12", True),
        ({"data": None}, b"null", True),
        ({"data_base64": base64.b64encode(b"\0\xff").decode()}, b"\0\xff", False),
        ({}, b"", False),
    ],
)
def test_data(members: dict[str, Any], body: bytes, json_body: bool) -> None:
    event = structured(REQUIRED | members)
    assert (event.body, event.json_body) == (body, json_body)


def test_structured_0_1() -> None:
    members = {
        "cloudEventsVersion": "0.1",
        "eventID": "7",
        "source": "/s",
        "eventType": "t",
        "eventTypeVersion": "2",
        "eventTime": "2018-04-05T17:31:00Z",
        "extensions": {"a": "b"},
        "contentType": "text/plain",
        "data": "text",
    }
    event = structured(members, b"application/cloudevents")
    assert (event.id, event.source, event.type, event.type_version, event.version) == ("7", "/s", "t", "2", "0.1")
    assert (event.body, event.json_body, event.content_type) == (b"text", False, "text/plain")
    assert event.headers == [("a", "b")]
    assert event.timestamp_ns == 1_522_949_460_000_000_000
    event = structured({"cloudEventsVersion": "0.1", "data": {"a": 1}})
    assert (event.body, event.json_body, event.headers) == (b'{"a": 1}', True, [])


def test_binary() -> None:
    event = binary(
        {
            b"ce-specversion": b"1.0",
            b"ce-id": b"1",
            b"ce-source": b"/a%20%C3%A9",
            b"ce-type": b"t",
            b"ce-time": b"2018-04-05T19:31:00+02:00",
        }
    )
    assert (event.id, event.source, event.type, event.version) == ("1", "/a é", "t", "1.0")
    assert event.timestamp_ns == 1_522_949_460_000_000_000
    assert (event.body, event.content_type, event.json_body) == (b"data", b"text/plain", False)
    event = binary({b"ce-cloudeventsversion": b"0.1", b"ce-eventid": b"9", b"ce-eventtypeversion": b"3"})
    assert (event.id, event.type_version, event.version, event.timestamp_ns) == ("9", "3", "0.1", NOW)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        ({}, "no `specversion`"),
        (REQUIRED | {"specversion": "0.3"}, "send specversion 1.0"),
        (REQUIRED | {"id": ""}, "no `id`"),
        ({"specversion": "1.0", "id": "1", "source": "/s"}, "no `type`"),
        (REQUIRED | {"id": 5}, "`id` of the CloudEvent is not a string"),
        (REQUIRED | {"id": None}, "`id` of the CloudEvent is not a string"),
        (REQUIRED | {"time": "yesterday"}, "`time`"),
        (REQUIRED | {"time": "2018-02-30T00:00:00Z"}, "`time`"),
        (REQUIRED | {"time": "2262-04-11T23:47:16.854775808Z"}, "`time` .* 2262-04-11"),
        (REQUIRED | {"time": "9999-12-31T23:59:59Z"}, "`time` .* 2262-04-11"),
        (REQUIRED | {"time": "1676-01-01T00:00:00Z"}, "`time` .* since 1970"),
        (REQUIRED | {"time": "1970-01-01T00:00:59.999999999+00:01"}, "`time` .* since 1970"),
        (REQUIRED | {"time": "٢٠١٨-04-05T17:31:00Z"}, "`time`"),
        ({"cloudEventsVersion": "0.1", "eventTime": "3000-01-01T00:00:00Z"}, "`eventTime` .* 2262-04-11"),
        (REQUIRED | {"data": 1, "data_base64": ""}, "both"),
        (REQUIRED | {"data_base64": "%"}, "not base64"),
        ({"cloudEventsVersion": "0.1", "extensions": []}, "`extensions`"),
    ],
)
def test_bad_envelopes(members: Any, text: str) -> None:
    with pytest.raises(Refusal, match=text) as caught:
        structured(members)
    assert caught.value.status == 400


def test_the_last_time_that_fits() -> None:
    event = structured(REQUIRED | {"time": "2262-04-11T23:47:16.854775807Z"})
    assert event.timestamp_ns == 2**63 - 1


def test_formats_that_are_not_understood() -> None:
    for content_type in (b"application/cloudevents-batch+json", b"application/cloudevents+avro"):
        with pytest.raises(Refusal) as caught:
            structured({}, content_type)
        assert caught.value.status == 415


def test_binary_errors() -> None:
    for headers, text in (
        ({b"ce-specversion": b"2.0"}, "2.0"),
        ({b"ce-specversion": b"1.0"}, "no `id`"),
        ({b"ce-specversion": b"1.0", b"ce-id": b"%ff"}, "ce-id"),
    ):
        with pytest.raises(Refusal, match=text):
            binary(headers)
