"""The demo's own folder: an agent's functions, state and sockets, apart from any real installation.

Flow: configs/demo -> copied here, with the addresses of the parts the demo started -> the agent watches `functions`.
Promise: leaving `open_place` removes everything, unless the operator asked to keep it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from agent.model.errors import CommandError

EXAMPLES = Path(__file__).parents[2] / "configs" / "demo"
"""The example functions, as people read and copy them."""

PREFIX = "headrace-demo-"


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of one demo. `inbox` is the one whose files become events, `parts` belongs to broker and producers."""

    root: Path

    @property
    def functions(self) -> Path:
        return self.root / "functions.d"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def parts(self) -> Path:
        return self.root / "parts"

    @property
    def config(self) -> Path:
        return self.root / "agent.yaml"

    @property
    def agent_log(self) -> Path:
        return self.root / "agent.log"


@contextmanager
def open_place(keep: Path | None) -> Iterator[Place]:
    """A fresh folder, removed at the end; or `keep`, which must not hold anything yet. Raises CommandError."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
            yield _prepared(Path(folder))
        return
    root = keep.expanduser().resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise CommandError("the folder to keep is not empty", where=str(root), fix="name a new one after --keep")
    root.mkdir(parents=True, exist_ok=True)
    yield _prepared(root)


def _prepared(root: Path) -> Place:
    place = Place(root)
    for folder in (place.functions, place.state, place.run, place.inbox, place.parts):
        folder.mkdir(mode=0o700)
    return place


def copy_examples(place: Place, addresses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Copy every example function, its triggers pointed at our parts; the names of the functions. Raises CommandError.

    `addresses` maps a kind of trigger to what its attributes (or its `url`) become.
    """
    sources = sorted(path for path in EXAMPLES.glob("*") if (path / "function.yaml").is_file())
    if not sources:
        raise CommandError(
            "the example functions are missing", where=str(EXAMPLES), fix="run the demo from a clone of the project"
        )
    for source in sources:
        shutil.copytree(source, place.parts / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        _point_at(place.parts / source.name / "function.yaml", addresses)
        (place.parts / source.name).rename(place.functions / source.name)
    return [source.name for source in sources]


def _point_at(file: Path, addresses: Mapping[str, Mapping[str, Any]]) -> None:
    yaml = YAML()  # keeps comments: with --keep, people read these files
    document = yaml.load(file)
    for trigger in document["spec"]["triggers"].values():
        for key, value in addresses.get(trigger["kind"], {}).items():
            target = trigger if key == "url" else trigger.setdefault("attributes", {})
            target[key] = value
    with file.open("w") as output:
        yaml.dump(document, output)
