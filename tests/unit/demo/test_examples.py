"""The handlers of configs/demo, called as a worker calls them."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agent.demo.place import EXAMPLES
from agent.demo.producers import sentence


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**values)


def test_converter() -> None:
    handler = example("converter").handler
    assert handler(None, event(fields={"celsius": "21"})) == {"celsius": 21.0, "fahrenheit": 69.8}
    assert handler(None, event(fields={"celsius": "warm"}))[0] == 400
    assert "celsius" in handler(None, event(fields={}))


def test_thermostat_has_a_band_in_which_nothing_changes() -> None:
    thermostat, context = example("thermostat"), SimpleNamespace(user_data=SimpleNamespace())
    thermostat.init_context(context)
    said = [
        thermostat.handler(context, event(topic="sensors/bath/temperature", body=celsius))
        for celsius in (b"20.0", b"19.0", b"20.0", b"21.0", b"20.0")
    ]
    assert [text.rsplit(" ", 1)[1] for text in said] == ["off", "on", "on", "off", "off"]


def test_weather_refuses_noise() -> None:
    handler = example("weather").handler
    assert handler(None, event(body=sentence("WIMTA,21.4,C"))) == "air temperature: 21.4 C"
    with pytest.raises(ValueError, match="checksum"):
        handler(None, event(body=b"$WIMTA,99.9,C*1C"))


def test_sales() -> None:
    body = b"product,pieces,price\nbolt,3,0.50\nnut,10,0.25\n"
    assert example("sales").handler(None, event(body=body)) == "2 rows, 4.00 in all, most sold: nut"


def test_heartbeat_counts() -> None:
    heartbeat, context = example("heartbeat"), SimpleNamespace(user_data=SimpleNamespace())
    heartbeat.init_context(context)
    assert [heartbeat.handler(context, event()).split(",")[0] for _ in range(2)] == ["beat 1", "beat 2"]
