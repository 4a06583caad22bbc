"""Keys of the mqtt trigger: defaults, and what each wrong value is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.triggers.mqtt.spec import Announcement, MqttSpec, Subscription, check_filter, parse_url

SUBSCRIPTIONS = [{"topic": "a/#", "qos": 1}]


def make(**keys: Any) -> MqttSpec:
    """A spec as the loader makes it."""
    given = {"kind": "mqtt", "url": "tcp://broker", "subscriptions": SUBSCRIPTIONS, **keys}
    return msgspec.convert(given, MqttSpec)


def test_nuclio_keys_alone_are_enough() -> None:
    spec = make(url="tcp://broker:1884", clientId="me", protocolVersion=4)
    assert spec.subscriptions == [Subscription(topic="a/#", qos=1)]
    assert (spec.version, spec.client_id, spec.promise) == (4, "me", "at-least-once")
    assert not spec.clean_session


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "text"),
    [
        ("tcp://h", "h", 1883, False, "tcp://h:1883"),
        ("mqtt://h:7", "h", 7, False, "mqtt://h:7"),
        ("ssl://h", "h", 8883, True, "ssl://h:8883"),
        ("mqtts://h/", "h", 8883, True, "mqtts://h:8883"),
        ("tls://[::1]:9", "::1", 9, True, "tls://[::1]:9"),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, text: str) -> None:
    assert parse_url(url)[:4] == (host, port, tls, text)


def test_credentials_in_the_url_are_used_and_hidden() -> None:
    spec = make(url="tcp://ann:p%40ss@h")
    assert (spec.address.username, spec.address.password) == ("ann", "p@ss")
    assert "p@ss" not in repr(spec) + spec.address.text and "p%40ss" not in repr(spec)
    assert "secret" not in repr(make(username="u", password="secret"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"url": ""}, "url: missing"),
        ({"url": "broker:1883"}, "url: 'broker:1883' has no scheme"),
        ({"url": "ws://h"}, "url: MQTT over websockets is not supported"),
        ({"url": "http://h"}, "url: unknown scheme 'http'"),
        ({"url": "tcp://h:0"}, "url: must be"),
        ({"url": "tcp://h:77777"}, "url: the port"),
        ({"url": "tcp://h/path"}, "url: must be"),
        ({"url": "tcp://"}, "url: must be"),
        ({"subscriptions": []}, "subscriptions: none given"),
        ({"subscriptions": [{"topic": "a/#/b"}]}, "# stands alone as the last level"),
        ({"subscriptions": [{"topic": "a", "qos": 3}]}, "<= 2"),
        ({"protocolVersion": 3}, "protocolVersion: 3 is not spoken here"),
        ({"caFile": "/x"}, "caFile: has no effect with url 'tcp://broker:1883'"),
        ({"url": "ssl://h", "keyFile": "/x"}, "keyFile: is of no use without certFile"),
        ({"password": "x"}, "username: missing"),
        ({"username": "u", "password": "x", "passwordFile": "/x"}, "passwordFile: given together with password"),
        ({"birth": {"topic": "a/+"}}, "birth.topic: 'a/+' is not a topic"),
    ],
)
def test_wrong_values_name_their_key(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        make(**keys)
    assert told in str(error.value)


def test_times_are_checked() -> None:
    given: dict[str, Any] = {"kind": "mqtt", "url": "tcp://h", "subscriptions": [Subscription(topic="a")]}
    for keys, told in (
        ({"keep_alive": 0.5}, "keepAlive"),
        ({"connect_timeout": 0.0}, "connectTimeout"),
        ({"reconnect_delay": 2.0, "max_reconnect_delay": 1.0}, "maxReconnectDelay"),
    ):
        with pytest.raises(ValueError, match=told):
            MqttSpec(**given, **keys)


@pytest.mark.parametrize("version", [5, "5", 5.0, "5.0"])
def test_version_five_in_any_spelling(version: Any) -> None:
    assert make(protocolVersion=version).version == 5


@pytest.mark.parametrize("text", ["#", "+", "/", "a/+/b/#", "$SYS/#", "$share/group/a/#", "ä/b"])
def test_good_filters(text: str) -> None:
    check_filter(text)


@pytest.mark.parametrize(
    "text", ["", "a#", "#/a", "a+/b", "a\0", "$share/group", "$share//a", "$share/g+/a", "a" * 65536]
)
def test_bad_filters(text: str) -> None:
    with pytest.raises(ValueError, match="subscriptions: topic"):
        check_filter(text)


def test_announcements() -> None:
    spec = make(will={"topic": "s", "payload": "lost", "qos": 1, "retain": True})
    assert spec.will == Announcement(topic="s", payload="lost", qos=1, retain=True)
