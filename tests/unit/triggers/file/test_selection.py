"""Which names a file trigger takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.triggers.file.rotation import RotatedNames
from agent.triggers.file.selection import Walk, WalkFailed, selection_of
from agent.triggers.file.spec import FileSpec


def spec_of(path: str | Path, **keys: Any) -> FileSpec:
    return FileSpec(kind="file", path=str(path), **keys)


@pytest.mark.parametrize("name", [".hidden", "a~", "a.tmp", ".a.swp", "a.part"])
def test_names_of_unfinished_files_are_ignored(name: str) -> None:
    selection = selection_of(spec_of("/in"))
    assert selection.takes("/in/a")
    assert not selection.takes(f"/in/{name}")


def test_patterns_with_a_slash_look_at_the_whole_path() -> None:
    selection = selection_of(spec_of("/in", patterns=("*.csv", "cam/*.jpg"), recursive=True))
    assert selection.takes("/in/deep/a.csv")
    assert selection.takes("/in/cam/1.jpg")
    assert not selection.takes("/in/other/1.jpg")


def test_wildcards_in_the_path() -> None:
    flat = selection_of(spec_of("/in/*.csv"))
    assert (flat.root, flat.recursive) == ("/in", False)
    assert flat.takes("/in/a.csv") and not flat.takes("/in/a.txt")
    deep = selection_of(spec_of("/in/*/x?.csv"))
    assert (deep.root, deep.recursive) == ("/in", True)
    assert deep.takes("/in/a/x1.csv") and not deep.takes("/in/a/y1.csv")
    anywhere = selection_of(spec_of("/in/**/*.csv"))
    assert anywhere.takes("/in/a/b/c.csv") and anywhere.takes("/in/c.csv")


def test_path_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    selection = selection_of(spec_of(tmp_path / "a.log"))
    assert selection.root == str(tmp_path)
    assert selection.takes(f"{tmp_path}/a.log") and not selection.takes(f"{tmp_path}/b.log")


def test_missing_path_is_a_folder_for_files_and_a_file_for_lines(tmp_path: Path) -> None:
    path = tmp_path / "app"
    assert selection_of(spec_of(path)).root == str(path)
    assert selection_of(spec_of(path, read="lines")).root == str(tmp_path)
    assert selection_of(spec_of(path, read="lines", patterns=("*.log",))).root == str(path)
    assert selection_of(spec_of(f"{path}/", read="lines")).root == str(path)


def test_folders_that_files_are_moved_to_are_not_entered() -> None:
    spec = spec_of("/in", recursive=True, on_success="move", move_to="done", on_failure="move", error_to="/in/bad")
    selection = selection_of(spec)
    assert selection.enters("/in/sub")
    assert not selection.enters("/in/done")
    assert not selection.enters("/in/bad")
    assert not selection.enters("/in/.git")


def test_walk_finds_what_is_wanted_and_watches_before_it_lists(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").touch()
    (tmp_path / "a" / "f.tmp").touch()
    os.symlink(tmp_path, tmp_path / "loop")
    order: list[str] = []
    selection = selection_of(spec_of(tmp_path, recursive=True))
    Walk(selection, lambda folder: order.append(f"watch {folder}"), lambda path, _: order.append(path)).over(
        str(tmp_path)
    )
    assert order == [
        f"watch {tmp_path}",
        f"watch {tmp_path}/a",
        f"watch {tmp_path}/a/b",
        f"{tmp_path}/a/b/f",
    ]


def test_walk_of_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(WalkFailed):
        Walk(selection_of(spec_of(tmp_path)), lambda _: None, lambda *_: None).over(str(tmp_path / "none"))


def test_folder_that_may_not_be_read_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "f").touch()

    def watch(folder: str) -> None:
        if folder.endswith("locked"):
            raise PermissionError

    seen: list[str] = []
    walk = Walk(selection_of(spec_of(tmp_path, recursive=True)), watch, lambda path, _: seen.append(path))
    walk.over(str(tmp_path))
    assert (walk.skipped, walk.broken, seen) == (1, 0, [f"{tmp_path}/open/f"])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"on_success": "move"}, "`moveTo` is missing"),
        ({"on_failure": "move"}, "`errorTo` is missing"),
        ({"move_to": "/done"}, "without `onSuccess: move`"),
        ({"read": "lines", "on_success": "delete"}, "must be `leave`"),
        ({"rescan": 0}, "above 0"),
        ({"settle": 2, "settle_max": 1}, "settleMax"),
        ({"settle_max": -1}, "settleMax"),
        ({"rotated": ("old/{name}",)}, "starts with {name}"),
    ],
)
def test_keys_that_contradict_each_other(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("{", r"\{")):
        spec_of("/in", **keys)


def test_rotated_names() -> None:
    names = RotatedNames(selection_of(spec_of("/log", patterns=("*.log",))), ("{name}.*", "{name}-*"))
    assert names.active_of("/log/app.log.1", ()) == "/log/app.log"
    assert names.active_of("/log/app.log-20261124", ()) == "/log/app.log"
    assert names.active_of("/log/app.log", ()) is None
    assert names.active_of("/log/other.txt.1", ()) is None
    assert names.takes("/log/app.log.1") and not names.takes("/log/other.txt")


def test_rotated_names_where_every_name_is_wanted() -> None:
    names = RotatedNames(selection_of(spec_of("/log", patterns=("*",))), ("{name}.*",))
    assert names.active_of("/log/app.log.1", {"/log/app.log"}) == "/log/app.log"
    assert names.active_of("/log/app.log.1", set()) is None
