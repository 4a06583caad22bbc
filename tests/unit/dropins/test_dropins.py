"""Which file counts for which function, and what the target is told. The folder is real, the watch is not needed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from agent.dropins import dropins
from agent.dropins.dropins import DropIns
from agent.model.errors import AgentError, SourceUnavailable, SpecError
from agent.model.load import load_function
from tests.support.eventually import eventually

TEXT = """metadata: {{name: {name}}}
spec:
  runtime: python:3.11
  handler: {handler}
  description: "{description}"
  build: {{functionSourceCode: {code}}}
  triggers: {{tick: {{kind: cron, attributes: {{interval: 1h}}}}}}
"""
CODE = "ZGVmIGhhbmRsZXIoYyxlKToKICByZXR1cm4gIm9rIgo="


def text(name: str, description: str = "", handler: str = "main:handler", code: str = CODE) -> str:
    return TEXT.format(name=name, description=description, handler=handler, code=code or '""')


class Target:
    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.error: AgentError | None = None

    async def apply(self, loaded, digest):
        if self.error:
            raise self.error
        self.told.append(("apply", loaded.function.metadata.name, loaded.source.name))

    def reject(self, name, message):
        self.told.append(("reject", name, message))

    def accept(self, name):
        self.told.append(("accept", name))

    def remove(self, name):
        self.told.append(("remove", name))

    def take(self) -> list[tuple[str, ...]]:
        told, self.told = self.told, []
        return told


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.target = Target()
        self.dropins = DropIns(path, load_function, self.target)

    def write(self, name: str, content: str) -> None:
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(content)

    def look(self, *names: str) -> list[tuple[str, ...]]:
        asyncio.run(self.dropins._look(names or None))
        return self.target.take()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_new_changed_touched_removed(folder):
    folder.write("blink.yaml", text("blink"))
    assert folder.look() == [("apply", "blink", "blink.yaml")]
    (folder.path / "blink.yaml").touch()
    assert folder.look("blink.yaml") == []
    folder.write("blink.yaml", text("blink", "other"))
    assert folder.look("blink.yaml") == [("apply", "blink", "blink.yaml")]
    (folder.path / "blink.yaml").unlink()
    assert folder.look("blink.yaml") == [("remove", "blink")]


def test_change_concerns_only_its_function(folder):
    folder.write("a.yaml", text("a"))
    folder.write("b.yaml", text("b"))
    folder.look()
    folder.write("b.yaml", text("b", "other"))
    assert folder.look() == [("apply", "b", "b.yaml")]


def test_broken_file_keeps_the_old_version_and_mending_it_back_changes_nothing(folder):
    folder.write("blink.yaml", text("blink"))
    folder.look()
    folder.write("blink.yaml", text("blink").replace("kind: cron", "kind: crn"))
    [(verb, name, message)] = folder.look("blink.yaml")
    assert (verb, name) == ("reject", "blink")
    assert "blink.yaml:7:" in message and "crn" in message
    assert folder.look("blink.yaml") == []
    folder.write("blink.yaml", text("blink"))
    assert folder.look("blink.yaml") == [("accept", "blink")]


def test_file_that_was_never_good_is_known_by_its_name_until_it_is_mended_or_removed(folder):
    folder.write("My Blink.yaml", "spec: [")
    [(verb, name, message)] = folder.look()
    assert (verb, name) == ("reject", "my-blink")
    assert "My Blink.yaml" in message
    (folder.path / "My Blink.yaml").unlink()
    assert folder.look() == [("remove", "my-blink")]


def test_two_files_with_one_name_the_first_counts_and_both_are_named(folder):
    folder.write("20-blink.yaml", text("blink", "second"))
    assert folder.look() == [("apply", "blink", "20-blink.yaml")]
    folder.write("10-blink.yaml", text("blink", "first"))
    applied, (verb, name, message) = folder.look()
    assert applied == ("apply", "blink", "10-blink.yaml")
    assert (verb, name) == ("reject", "blink")
    assert "10-blink.yaml" in message and "20-blink.yaml" in message
    (folder.path / "10-blink.yaml").unlink()
    assert folder.look() == [("apply", "blink", "20-blink.yaml")]


def test_renamed_function_is_removed_and_added(folder):
    folder.write("x.yaml", text("one"))
    folder.look()
    folder.write("x.yaml", text("two"))
    assert folder.look() == [("remove", "one"), ("apply", "two", "x.yaml")]


def test_renamed_file_is_the_same_function(folder):
    folder.write("x.yaml", text("one"))
    folder.look()
    (folder.path / "x.yaml").rename(folder.path / "y.yaml")
    assert folder.look() == [("apply", "one", "y.yaml")]


def test_folder_and_code_in_it(folder):
    folder.write("blink/function.yaml", text("blink", code=""))
    folder.write("blink/main.py", "def handler(c, e): return 1")
    assert folder.look() == [("apply", "blink", "blink")]
    folder.write("blink/main.py", "def handler(c, e): return 2")
    assert folder.look("blink") == [("apply", "blink", "blink")]
    folder.write("blink/main.py~", "x")
    assert folder.look("blink") == []


def test_code_beside_its_specification_is_part_of_it_and_no_function(folder):
    folder.write("main.py", "def handler(c, e): return 1")
    folder.write("blink.yaml", text("blink", code=""))
    assert folder.look() == [("apply", "blink", "blink.yaml")]
    folder.write("main.py", "def handler(c, e): return 2")
    assert folder.look("main.py") == [("apply", "blink", "blink.yaml")]


def test_single_source_file_is_a_function(folder):
    folder.write("hello.py", "def handler(c, e): return 1")
    assert folder.look() == [("apply", "hello", "hello.py")]


def test_empty_folders_and_other_files_are_not_mentioned(folder):
    (folder.path / "empty").mkdir()
    folder.write("README.md", "hello")
    assert folder.look() == []


def test_what_could_not_be_prepared_is_tried_at_the_next_look(folder):
    folder.write("blink.yaml", text("blink"))
    folder.target.error = SpecError("no space left")
    assert folder.look() == [("reject", "blink", "no space left")]
    folder.target.error = None
    assert folder.look() == [("apply", "blink", "blink.yaml")]


def test_vanished_functions_folder_stops_nothing(folder):
    folder.write("sub/x.yaml", text("x"))
    inner = Folder(folder.path / "sub")
    inner.look()
    (folder.path / "sub").rename(folder.path / "away")
    assert inner.look() == []


def test_fault_in_a_plug_in_concerns_its_file_only(folder):
    folder.write("a.yaml", text("a"))
    folder.write("b.yaml", text("b"))

    def load(path):
        if path.name == "a.yaml":
            raise RuntimeError("bug")
        return load_function(path)

    folder.dropins._load = load
    assert sorted(told[:2] for told in folder.look()) == [("apply", "b"), ("reject", "a")]


async def test_a_file_that_takes_long_to_read_does_not_stop_the_agent(tmp_path):
    """A YAML file can be made so that it takes seconds."""
    gone_on = threading.Event()

    def load(path):
        assert gone_on.wait(10), "nothing else ran"
        return load_function(path)

    (tmp_path / "blink.yaml").write_text(text("blink"))
    target = Target()
    asyncio.get_running_loop().call_soon(gone_on.set)
    await DropIns(tmp_path, load, target)._look(None)
    assert target.take() == [("apply", "blink", "blink.yaml")]


async def test_what_the_device_could_not_take_is_tried_again_by_itself(tmp_path, monkeypatch):
    """With growing delay; what only a person can mend is not."""
    monkeypatch.setattr(dropins, "FIRST_RETRY_S", 0.01)
    (tmp_path / "blink.yaml").write_text(text("blink"))
    target = Target()
    tried = DropIns(tmp_path, load_function, target, settle_s=0.0)
    target.error = SourceUnavailable("no space left")
    running = asyncio.create_task(tried.run(lambda: None))
    try:
        await eventually(lambda: tried._retry_s >= 0.08)
        assert target.take() == [("reject", "blink", "no space left")]
        target.error = None
        await eventually(lambda: target.told)
        assert target.take() == [("apply", "blink", "blink.yaml")]
        await eventually(lambda: tried._retry is None)
        assert tried._retry_s == 0.01
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_a_person_must_mend_is_not_tried_again(tmp_path):
    (tmp_path / "blink.yaml").write_text(text("blink"))
    target = Target()
    tried = DropIns(tmp_path, load_function, target)
    target.error = SpecError("a key is wrong")
    await tried._look(None)
    assert tried._retry is None
