"""`context.publish`: what reaches the channel, and what is told to the handler instead."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.python.sdk.nuclio_sdk.context import Context
from runtimes.python.sdk.nuclio_sdk.publisher import Publisher


class Channel:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def publish(self, *record: Any) -> None:
        self.sent.append(record)


class Output:
    def __init__(self) -> None:
        self.channel: Channel | None = Channel()

    def current(self) -> int:
        return 7


def context_with(bindings: dict[str, str], brokers: list[str]) -> tuple[Context, list[tuple[Any, ...]]]:
    output = Output()
    assert output.channel is not None
    publisher = Publisher(output, bindings, brokers, 1000)  # type: ignore[arg-type]
    return Context(publisher=publisher), output.channel.sent


def test_everything_that_is_given_travels() -> None:
    context, sent = context_with({"cloud": ""}, [])
    context.publish("cloud", b"x", topic="a/b", qos=2, retain=True, headers={"unit": "C", "n": 5}, key="k", now=True)
    attributes = [(":topic", "a/b"), (":qos", "2"), (":retain", "1"), (":key", "k"), (":now", "1")]
    assert sent == [(7, "cloud", [*attributes, ("unit", "C"), ("n", "5")], b"x")]


@pytest.mark.parametrize(
    ("body", "data", "type_"),
    [
        ("ü", "ü".encode(), None),
        (b"\xff", b"\xff", None),
        ({"a": 1}, b'{"a": 1}', "application/json"),
        (5, b"5", "application/json"),
    ],
)
def test_bodies(body: Any, data: bytes, type_: str | None) -> None:
    context, sent = context_with({"cloud": "t"}, [])
    context.publish("cloud", body)
    assert sent[0][3] == data
    assert dict(sent[0][2]).get("Content-Type") == type_


def test_a_content_type_that_is_given_stays() -> None:
    context, sent = context_with({"cloud": "t"}, [])
    context.publish("cloud", {}, headers={"content-type": "application/senml+json"})
    assert [value for name, value in sent[0][2] if name.lower() == "content-type"] == ["application/senml+json"]


@pytest.mark.parametrize(
    ("bindings", "brokers", "target", "topic", "to"),
    [
        ({"cloud": "t"}, [], "cloud", None, ("cloud", "t")),
        ({"cloud": "t"}, [], "cloud", "u", ("cloud", "u")),
        ({}, ["m", "n"], "lamp", None, ("m", "lamp")),
        ({}, ["m", "n"], "n", "lamp", ("n", "lamp")),
        ({"cloud": ""}, ["m"], "a/b", None, ("m", "a/b")),
        ({}, ["m"], "", "lamp", ("m", "lamp")),
    ],
)
def test_targets(bindings: dict[str, str], brokers: list[str], target: str, topic: str | None, to: Any) -> None:
    context, sent = context_with(bindings, brokers)
    context.publish(target, b"", topic=topic)
    assert (sent[0][1], dict(sent[0][2])[":topic"]) == to


@pytest.mark.parametrize(
    ("bindings", "brokers", "target", "topic", "told"),
    [
        ({"cloud": "", "site": "s"}, [], "clod", None, "no binding 'clod' to publish to: there are cloud, site"),
        ({"cloud": ""}, ["m"], "clod", None, "there are cloud, m; for a bare topic without a slash write publish('m',"),
        ({"cloud": ""}, ["m"], "clod", "t", "no binding 'clod'"),
        ({"cloud": ""}, [], "cloud", None, "'cloud' has no topic of its own"),
        ({}, [], "a/b", None, "this function has no bindings, and no mqtt trigger"),
        ({}, ["m"], "m", None, "'m' has no topic of its own"),
        ({"cloud": ""}, [], "cloud", "a/+", "is no topic"),
        ({"cloud": ""}, [], "cloud", "x" * 65536, "is no topic"),
    ],
)
def test_mistakes(bindings: dict[str, str], brokers: list[str], target: str, topic: str | None, told: str) -> None:
    context, sent = context_with(bindings, brokers)
    with pytest.raises(ValueError, match=r".") as error:
        context.publish(target, b"", topic=topic)
    assert told in str(error.value)
    assert sent == []


def test_outside_a_worker_and_in_a_forked_process_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="no processor to publish through"):
        Context().publish("cloud", b"")
    output = Output()
    output.channel = None
    context = Context(publisher=Publisher(output, {"cloud": "t"}, [], 10))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="only the worker itself"):
        context.publish("cloud", b"")


def test_types_are_told() -> None:
    context, _ = context_with({"cloud": ""}, [])
    with pytest.raises(TypeError):
        context.publish(5, b"")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        context.publish("cloud", b"", topic=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1001 bytes is over"):
        context.publish("cloud", bytes(1001), topic="t")
