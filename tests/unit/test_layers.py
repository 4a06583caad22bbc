"""Reads every import, late and type-only ones too, and fails on an arrow that points up.

The table is the one of ARCHITECTURE: a layer may import itself and what its row names, nothing else of ours.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("agent", "shmem", "runtimes", "bindings")
PLUG_INS = ("agent.triggers", "runtimes", "bindings")
"""Each folder below these is a layer of its own: plug-ins never import one another."""

BELOW_PROCESSOR = ("agent.triggers", "bindings", "runtimes", "shmem", "agent.model", "agent.logging_setup")
FACE = ("agent.control", "agent.model", "agent.logging_setup")
ANY = ("agent",)

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "agent.model": (),
    "shmem": (),
    "agent.logging_setup": (),
    "agent.triggers": ("agent.model",),
    "bindings": ("agent.model",),
    "runtimes": ("agent.model", "shmem"),
    "agent.processor": BELOW_PROCESSOR,
    "agent.supervisor": ("agent.model", "agent.logging_setup"),
    "agent.store": ("agent.model",),
    "agent.control": ("agent.store", "agent.supervisor", "agent.model"),
    "agent.dropins": FACE,
    "agent.portal": FACE,
    "agent.push": FACE,
    "agent.configuration": ("agent.model",),
    "agent.demo": ("agent.model", "agent.logging_setup", "agent.configuration"),
    # The daemon is where the parts of the agent are put together. It starts processors and never imports them.
    "agent.daemon": (
        *("agent.configuration", "agent.dropins", "agent.push", "agent.control", "agent.store", "agent.supervisor"),
        *("shmem", "agent.model", "agent.logging_setup"),
    ),
    # A command is the entry point of a process, so it imports what that process is made of.
    "agent.cli": FACE,
    # Forks what the agent imported before it had a loop: knows how, not what.
    "agent.nursery": (),
    # Besides the daemon, the modules that its nurseries are to share.
    "agent.cli.agent": (
        *(*FACE, "agent.configuration", "agent.daemon", "agent.nursery"),
        *("agent.cli.processor", "agent.logging_setup", "runtimes.python.nursery"),
    ),
    "agent.cli.demo": (*FACE, "agent.demo", "agent.configuration", "agent.daemon"),
    "agent.cli.run": (*FACE, *BELOW_PROCESSOR, "agent.processor"),
    "agent.cli.deadletters": (*FACE, "agent.configuration", "agent.processor.delivery"),
    "agent.cli.processor": (*FACE, *BELOW_PROCESSOR, "agent.processor"),
}

SAME_PROTOCOL = {"bindings.mqtt": "agent.triggers.mqtt"}
"""The one thing plug-ins share: a binding may use the client of the trigger that speaks the same protocol."""

STANDARD_ONLY = ("runtimes/python/worker.py", "runtimes/python/nuclio_sdk", "runtimes/python/sdk")
"""Run inside the function's own interpreter, where nothing but the standard library is sure to be there."""


class Import(NamedTuple):
    module: str
    line: int
    type_only: bool


def files() -> list[Path]:
    found = [path for top in OURS for path in sorted((ROOT / top).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(), str(path))
    type_only = {id(inner) for node in ast.walk(tree) if is_type_checking(node) for inner in ast.walk(node)}
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in type_only)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:  # `from agent import supervisor` imports agent.supervisor
                yield Import(f"{base}.{alias.name}", node.lineno, id(node) in type_only)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def layer_of(module: str) -> str:
    """The longest row of the table that holds the module; a plug-in's own folder within its row."""
    parts = module.split(".")
    for plug_in in PLUG_INS:
        depth = plug_in.count(".") + 1
        if module.startswith(f"{plug_in}."):
            return ".".join(parts[: depth + 1])
    rows = [row for row in MAY_IMPORT if module == row or module.startswith(f"{row}.")]
    return max(rows, key=len, default="")


def allowed(layer: str, target: str) -> bool:
    row = next((name for name in PLUG_INS if layer.startswith(f"{name}.")), layer)
    own = (layer, "agent.cli.main") if layer.startswith("agent.cli") else (layer,)
    own = (*own, SAME_PROTOCOL[layer]) if layer in SAME_PROTOCOL else own
    return any(target == name or target.startswith(f"{name}.") for name in (*MAY_IMPORT[row], *own))


def test_every_file_has_a_layer() -> None:
    lost = [
        str(path.relative_to(ROOT)) for path in files() if path.read_text().strip() and not layer_of(module_name(path))
    ]
    assert lost == [], "add a row to MAY_IMPORT"


def test_no_arrow_points_up() -> None:
    wrong = []
    for path in files():
        layer = layer_of(module_name(path))
        for item in imports(path):
            if item.module.split(".")[0] in OURS and not allowed(layer, item.module):
                wrong.append(f"{path.relative_to(ROOT)}:{item.line}: {layer} may not import {item.module}")
    assert wrong == []


def test_what_runs_in_the_functions_interpreter_needs_the_standard_library_only() -> None:
    wrong = []
    for path in files():
        name = str(path.relative_to(ROOT))
        if not name.startswith(STANDARD_ONLY):
            continue
        # msgpack: imported late, by functions that decode events themselves and bring it along
        known = (*sys.stdlib_module_names, "nuclio_sdk", "runtimes.python.sdk", "msgpack")
        for item in imports(path):
            if not item.type_only and not any(item.module == one or item.module.startswith(f"{one}.") for one in known):
                wrong.append(f"{name}:{item.line}: {item.module}")
    assert wrong == []


def test_init_files_are_empty() -> None:
    # nuclio_sdk is a package functions import names from, so its __init__ has to have them
    full = [path for path in files() if path.name == "__init__.py" and path.read_text().strip()]
    assert [str(path.relative_to(ROOT)) for path in full if path.parent.name != "nuclio_sdk"] == []


@pytest.mark.parametrize(
    ("source", "target", "good"),
    [
        ("agent.supervisor.supervisor", "agent.processor.run", False),
        ("agent.model.load", "agent.triggers.http.trigger", False),
        ("agent.triggers.http.trigger", "agent.triggers.mqtt.spec", False),
        ("agent.triggers.http.trigger", "agent.triggers.http.spec", True),
        ("agent.triggers.http.trigger", "agent.model.event.Event", True),
        ("agent.triggers.http.trigger", "agent.modelling", False),
        ("runtimes.python.runtime", "shmem.channel", True),
        ("runtimes.python.runtime", "runtimes.nodejs.runtime", False),
        ("agent.processor.run", "runtimes.python.runtime", True),
        ("bindings.mqtt.binding", "agent.triggers.mqtt.link.Link", True),
        ("bindings.mqtt.binding", "agent.triggers.http.trigger", False),
        ("agent.triggers.mqtt.trigger", "bindings.mqtt.binding", False),
        ("agent.cli.validate", "agent.processor.run", False),
        ("agent.cli.run", "agent.processor.run", True),
        ("agent.daemon", "agent.processor.run", False),
        ("shmem.segment", "agent.model.errors", False),
    ],
)
def test_the_table_means_what_it_says(source: str, target: str, good: bool) -> None:
    assert allowed(layer_of(source), target) is good


def test_late_and_type_only_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "agent" / "model" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "if TYPE_CHECKING:\n    from agent import cli\ndef f():\n    import agent.store.x\n"
        "    from ..triggers import http\n"
    )
    found = [(item.module, item.type_only) for item in imports(file)]
    assert sorted(found) == [("agent.cli", True), ("agent.store.x", False), ("agent.triggers.http", False)]
