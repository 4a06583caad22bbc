"""The keys of an mqtt binding, and how a trigger's connection is borrowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import SpecError
from agent.model.load import load_function, load_text
from agent.model.spec import Binding
from agent.triggers.mqtt.spec import Announcement, MqttSpec, Subscription
from bindings.mqtt.binding import check, connection_of

EXAMPLE = Path(__file__).parents[4] / "bindings" / "mqtt" / "example.yaml"


def binding(**values: Any) -> Binding:
    return Binding(**{"name": "cloud", "kind": "mqtt", "url": "tcp://broker:1883"} | values)


def test_keys_of_the_trigger_in_any_case() -> None:
    found = connection_of(binding(username="u", password="p", attributes={"ClientId": "me", "keepalive": "5s"}))
    assert (found.client_id, found.keep_alive, found.username) == ("me", 5.0, "u")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"url": ""}, "url: missing"),
        ({"url": "tcp://h", "attributes": {"protocolversion": 3}}, "protocolVersion: 3 is not spoken"),
        ({"attributes": {"clientid_": "x"}}, "did you mean 'clientId'"),
        ({"attributes": {"subscriptions": []}}, "no key 'subscriptions'"),
        ({"attributes": {"keepAlive": 5}}, "keepAlive: expected a duration"),
        ({"attributes": {"clientID": 5}}, "clientId: Expected `str`"),
        ({"attributes": {"caFile": "/x"}}, "caFile: has no effect"),
        ({"topic": "a/#"}, "topic: 'a/#' is not a topic"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        check(binding(**values))
    assert text in str(error.value)


def test_a_triggers_broker_is_used_under_a_client_id_of_its_own() -> None:
    will = Announcement(topic="gone")
    trigger = MqttSpec(kind="mqtt", url="tcp://h", client_id="mine", subscriptions=[Subscription(topic="a")], will=will)
    found = connection_of(trigger)
    assert (found.client_id, found.will) == ("mine-outbox", None)


def load(bindings: str) -> Any:
    text = f"metadata: {{name: f}}\nspec:\n  runtime: python\n  handler: main:handler\n{bindings}"
    return load_text(text, "f.yaml")


def test_both_names_of_the_key_are_read() -> None:
    loaded = load(
        "  bindings: {a: {kind: mqtt, url: 'tcp://h'}}\n  dataBindings: {b: {class: mqtt, url: 'tcp://h', topic: t}}\n"
    )
    assert [(item.name, item.kind) for item in loaded.function.spec.bindings.values()] == [("a", "mqtt"), ("b", "mqtt")]
    assert loaded.function.spec.data_bindings == {}


def test_a_data_binding_of_nuclio_that_we_lack_is_a_warning() -> None:
    loaded = load("  dataBindings: {db0: {class: v3io, url: 'http://h'}}\n")
    assert loaded.function.spec.bindings == {}
    assert any("'v3io' are not supported" in item.what for item in loaded.warnings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("  bindings: {a: {kind: carrier-pigeon}}\n", "no binding of kind 'carrier-pigeon'; known kinds: mqtt"),
        ("  bindings: {a: {kind: mqtt}}\n", "spec.bindings.a: url: missing"),
        (
            "  bindings: {a: {kind: mqtt, url: 'tcp://h'}}\n  triggers: {a: {kind: http}}\n",
            "a trigger or binding already",
        ),
        ("  outbox: {maxAge: 0s}\n", "spec.outbox.maxAge: must be more than 0s"),
    ],
)
def test_errors_have_their_place(text: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        load(text)
    assert told in str(error.value)


def test_the_example_loads() -> None:
    assert load_function(EXAMPLE).function.spec.bindings["cloud"].topic
