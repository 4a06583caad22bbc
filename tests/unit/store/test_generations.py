"""What a version's folder is made of, and who may read it."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.model.load import Loaded, load_function
from agent.store.generations import Generations


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    return Generations(tmp_path / "run", tmp_path / "state", tmp_path / "logs")


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    folder = tmp_path / "lamp"
    folder.mkdir()
    (folder / "main.py").write_text("def handler(context, event):\n    return event.body\n")
    (folder / "function.yaml").write_text("metadata: {name: lamp}\nspec: {handler: main:handler, runtime: python}\n")
    return load_function(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_triggers_remember_and_functions_say_is_the_owners(
    generations: Generations, loaded: Loaded, tmp_path: Path
) -> None:
    for path in (tmp_path / "logs", tmp_path / "state" / "lamp" / "state"):
        path.mkdir(0o755, parents=True)  # as they were made once
    folder = generations.prepare(loaded)
    assert (mode(folder / "processor.yaml"), mode(folder / "state"), mode(tmp_path / "logs")) == (0o600, 0o700, 0o700)
    assert (folder / "code" / "main.py").is_file()
    assert mode(tmp_path / "state" / "lamp" / "code") == 0o700


def test_who_a_functions_workers_run_as_can_reach_its_code(
    generations: Generations, loaded: Loaded, tmp_path: Path
) -> None:
    context = msgspec.structs.replace(loaded.function.spec.security_context, run_as_user=65534)
    spec = msgspec.structs.replace(loaded.function.spec, security_context=context)
    loaded = dataclasses.replace(loaded, function=msgspec.structs.replace(loaded.function, spec=spec))
    folder = generations.prepare(loaded)
    assert mode(tmp_path / "state" / "lamp" / "code") == 0o711
    assert (mode(folder / "state"), mode(folder / "processor.yaml")) == (0o700, 0o600)
