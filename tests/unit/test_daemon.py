"""How a version comes from a drop-in to the supervisor, without stopping what the agent does meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import _Deployed
from agent.model.load import Loaded, load_function
from agent.store.generations import CannotPrepare
from agent.store.generations import Generations as RealGenerations
from agent.supervisor.version import Version


class Generations:
    """Stands for the store; `prepare` takes until `ready` is set, as a large tree does on a slow card."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.forgotten: list[str] = []

    def prepare(self, loaded: Loaded) -> Path:
        assert self.ready.wait(10), "the agent was not able to go on"
        return Path("/run/lamp/1")

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


class Supervisor:
    def __init__(self) -> None:
        self.applied: list[Version] = []

    def apply(self, version: Version) -> None:
        self.applied.append(version)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def deployed(folder: Path) -> tuple[_Deployed, Generations, Supervisor, Loaded]:
    file = folder / "lamp.py"
    file.write_text("def handler(context, event):\n    return 1\n")
    generations, supervisor = Generations(), Supervisor()
    return _Deployed(supervisor, generations), generations, supervisor, load_function(file)  # type: ignore[arg-type]


async def test_the_agent_goes_on_while_a_tree_is_copied(tmp_path: Path) -> None:
    target, generations, supervisor, loaded = deployed(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(target.apply(loaded, "digest"))
        asyncio.get_running_loop().call_soon(generations.ready.set)
    assert [version.folder for version in supervisor.applied] == [Path("/run/lamp/1")]


async def test_a_version_that_is_being_made_is_not_swept_away_with_the_one_before(tmp_path: Path) -> None:
    target, generations, _, loaded = deployed(tmp_path)
    name = loaded.function.metadata.name

    def removed_meanwhile() -> None:
        target.gone(name)
        target.gone("other")
        generations.ready.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(target.apply(loaded, "digest"))
        asyncio.get_running_loop().call_soon(removed_meanwhile)
    assert generations.forgotten == ["other"]
    target.gone(name)
    assert generations.forgotten == ["other", name]


async def test_a_tree_that_cannot_be_copied_is_one_readable_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str, **_: Any) -> None:
        raise OSError(28, "No space left on device", str(target))

    (tmp_path / "lamp").mkdir()
    for name in ("function.yaml", "a.txt", "b.txt"):
        (tmp_path / "lamp" / name).write_text("")
    (tmp_path / "lamp" / "function.yaml").write_text("metadata: {name: lamp}\nspec: {runtime: python, handler: a:b}\n")
    monkeypatch.setattr(shutil, "copystat", full)
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    generations = RealGenerations(tmp_path / "run", tmp_path / "state", tmp_path / "logs")
    target = _Deployed(Supervisor(), generations)  # type: ignore[arg-type]
    with pytest.raises(CannotPrepare) as told:
        await target.apply(load_function(tmp_path / "lamp"), "digest")
    assert told.value.retry
    assert "cannot prepare function 'lamp': No space left on device: " in str(told.value)
    assert "and 3 more files" in str(told.value)
    assert "Errno" not in str(told.value) and "[(" not in str(told.value)
