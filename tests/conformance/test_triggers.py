"""What every trigger's folder must have and do: a new folder is tested by existing."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import msgspec
import pytest

from agent.cli.validate import check
from agent.model.load import dump_processor_yaml, embedded_source, load_function, load_processor
from agent.model.registry import trigger_kind, trigger_kinds
from agent.model.spec import TriggerSpec

ROOT = Path(__file__).parents[2] / "agent" / "triggers"
KINDS = trigger_kinds()


def folder(kind: str) -> Path:
    return ROOT / kind.replace("-", "_")


def test_there_are_triggers() -> None:
    assert {"cron", "http"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_folder_is_complete(kind: str) -> None:
    assert [name for name in ("trigger.py", "example.yaml", "README.md") if not (folder(kind) / name).is_file()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_registers_itself(kind: str) -> None:
    found = trigger_kind(kind)
    assert found.name == folder(kind).name
    assert issubclass(found.spec, TriggerSpec)
    assert inspect.iscoroutinefunction(found.run)
    assert list(inspect.signature(found.run).parameters) == ["spec", "sink"]
    module = importlib.import_module(f"agent.triggers.{found.name}.trigger")
    assert (module.__doc__ or "").strip(), "a module opens with why it exists, and what it promises"


@pytest.mark.parametrize("kind", KINDS)
def test_example_loads(kind: str, tmp_path: Path) -> None:
    loaded = load_function(folder(kind) / "example.yaml")
    spec = loaded.function.spec
    assert kind in [item.kind for item in spec.triggers.values()]
    assert loaded.warnings == []
    (tmp_path / "processor.yaml").write_bytes(dump_processor_yaml(loaded.function))
    assert load_processor(tmp_path) == loaded.function


@pytest.mark.parametrize("kind", KINDS)
def test_example_is_whole_and_can_be_read(kind: str) -> None:
    """`headrace run` and the functions folder take it as it is: its code is inside, and stands above as a comment."""
    path = folder(kind) / "example.yaml"
    assert check(path) == []
    embedded = embedded_source(load_function(path).function)
    assert embedded is not None
    comment = re.search(r"  build:\n((?:    #.*\n)+)    functionSourceCode:", path.read_text())
    assert comment is not None
    assert re.sub(r"^    # ?", "", comment[1], flags=re.M) == embedded[1].decode()


@pytest.mark.parametrize("kind", KINDS)
def test_readme_names_every_own_key(kind: str) -> None:
    text = (folder(kind) / "README.md").read_text().lower()
    common = {item.name for item in msgspec.structs.fields(TriggerSpec)}
    own = [item for item in msgspec.structs.fields(trigger_kind(kind).spec) if item.name not in common]
    missing = [item.encode_name for item in own if not re.search(rf"\b{re.escape(item.encode_name.lower())}\b", text)]
    assert missing == []
