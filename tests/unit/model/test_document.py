"""docs/function-spec.md names every key, and its example is a good one."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from agent.model.load import load_text
from agent.model.spec import (
    AsyncMode,
    Batch,
    Binding,
    Build,
    FunctionSpec,
    LoggerSink,
    Metadata,
    Outbox,
    RestartPolicy,
    TriggerSpec,
)

DOCUMENT = (Path(__file__).parents[3] / "docs" / "function-spec.md").read_text()


@pytest.mark.parametrize(
    "spec", [Metadata, FunctionSpec, Build, TriggerSpec, Batch, AsyncMode, RestartPolicy, LoggerSink, Binding, Outbox]
)
def test_every_key_is_there(spec: type[msgspec.Struct]) -> None:
    names = [item.encode_name for item in msgspec.structs.fields(spec)]
    assert [name for name in names if not re.search(rf"\b{name}\b", DOCUMENT)] == []


def test_example_loads() -> None:
    example = DOCUMENT.split("```yaml\n", 1)[1].split("```", 1)[0]
    loaded = load_text(example, "example")
    assert loaded.warnings == [] and loaded.function.metadata.name == "blink"
