"""A trigger kind of our own, so that these tests depend on no real trigger, and a stand-in for http while it loads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec
import pytest

from agent.model import registry
from agent.model.spec import Duration, Port, TriggerSpec


class LineFraming(msgspec.Struct, frozen=True, kw_only=True, tag="line", tag_field="kind"):
    ending: str = "\n"


class LengthFraming(msgspec.Struct, frozen=True, kw_only=True, tag="length", tag_field="kind"):
    bytes_: Annotated[int, msgspec.Meta(ge=1)] = msgspec.field(default=4, name="bytes")


class Subscription(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    topic: str
    qos: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0


class WidgetSpec(TriggerSpec, frozen=True, kw_only=True):
    """One field of every shape a trigger may use."""

    port: Port = 0
    client_id: str = ""
    interval: Duration | None = None
    subscriptions: list[Subscription] = msgspec.field(default_factory=list)
    framing: LineFraming | LengthFraming = LineFraming()
    color: Literal["red", "green"] = "red"
    topics: Annotated[list[str], msgspec.Meta(max_length=2)] = msgspec.field(default_factory=list)
    headers: dict[str, str | int | bool] = msgspec.field(default_factory=dict)
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    ratio: float = 1.0
    pair: tuple[int, str] = (0, "")
    least: int = 0

    def __post_init__(self) -> None:
        if self.least > 5:
            raise ValueError("least is above 5")
        for key, value in self.extra.items():
            if key == "refuse":
                raise ValueError(value)


@pytest.fixture(autouse=True)
def widget() -> Iterator[type[WidgetSpec]]:
    """Registers the kind `widget` for the time of a test."""

    async def run(spec: WidgetSpec, sink: object) -> None: ...

    name = "agent.triggers.widget.trigger"
    run.__module__ = name
    sys.modules[name] = ModuleType(name)
    registry.trigger(WidgetSpec)(run)  # type: ignore[arg-type]
    yield WidgetSpec
    del sys.modules[name]
    registry._triggers.pop(WidgetSpec)
