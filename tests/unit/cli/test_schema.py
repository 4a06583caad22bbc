"""The published JSON Schema is the one the code makes, and every example fits it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.cli.schema import schema_text
from agent.model.positions import parse, to_plain
from agent.model.schema import function_schema

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "configs" / "function.schema.json"
EXAMPLES = sorted((ROOT / "agent" / "triggers").glob("*/example.yaml"))
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def test_published_schema_is_current() -> None:
    assert PUBLISHED.read_text() == schema_text(), "run: headrace schema > configs/function.schema.json"


def test_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == schema_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.parent.name for path in EXAMPLES])
def test_examples_fit(path: Path) -> None:
    assert problems(to_plain(parse(path.read_bytes(), str(path)))) == []


def test_what_does_not_fit() -> None:
    def triggers(trigger: dict[str, Any]) -> list[str]:
        return problems({"metadata": {"name": "a"}, "spec": {"triggers": {"t": trigger}}})

    assert triggers({"kind": "http", "port": 80}) == triggers({"kind": "http", "attributes": {"port": 80}}) == []
    for wrong in (
        {},
        {"kind": "nope"},
        {"kind": "http", "port": "80"},
        {"kind": "http", "attributes": {"port": 70000}},
    ):
        assert triggers(wrong)
    assert triggers({"kind": "cron", "attributes": {"interval": "1m30s"}}) == []
    assert triggers({"kind": "cron", "attributes": {"interval": 5}})
    assert problems({"metadata": []}) and problems([])


def problems(value: Any) -> list[str]:
    """What keeps a value from fitting the schema; knows only the words that the schema uses."""
    schema = function_schema()

    def check(value: Any, rule: dict[str, Any], at: str) -> list[str]:
        if "$ref" in rule:
            return check(value, schema["$defs"][rule["$ref"].removeprefix("#/$defs/")], at)
        if "anyOf" in rule:
            attempts = [check(value, item, at) for item in rule["anyOf"]]
            return [] if [] in attempts else [f"{at}: fits none"]
        if ("enum" in rule and value not in rule["enum"]) or ("const" in rule and value != rule["const"]):
            return [f"{at}: {value!r}"]
        wanted = _TYPES.get(rule.get("type", ""), object)
        if rule.get("type") == "boolean":
            wanted = bool
        elif isinstance(value, bool) and wanted is not object:
            return [f"{at}: a boolean"]
        if not isinstance(value, wanted):  # type: ignore[arg-type]
            return [f"{at}: not {rule['type']}"]
        return limits(value, rule, at) + inside(value, rule, at)

    def limits(value: Any, rule: dict[str, Any], at: str) -> list[str]:
        if isinstance(value, str) and "pattern" in rule and not re.search(rule["pattern"], value):
            return [f"{at}: {value!r}"]
        if isinstance(value, int | float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
            return [f"{at}: {value}"]
        return []

    def inside(value: Any, rule: dict[str, Any], at: str) -> list[str]:
        found: list[str] = []
        if isinstance(value, list) and "items" in rule:
            for index, item in enumerate(value):
                found += check(item, rule["items"], f"{at}[{index}]")
        if isinstance(value, dict):
            found += [f"{at}.{key}: missing" for key in rule.get("required", []) if key not in value]
            for key, item in value.items():
                found += check(
                    item, rule.get("properties", {}).get(key, rule.get("additionalProperties", {})), f"{at}.{key}"
                )
        return found

    return check(value, schema, "")
