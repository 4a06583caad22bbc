from __future__ import annotations

import os

import pytest

from agent.dropins.digest import Digests


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "blink"
    (folder / "lib").mkdir(parents=True)
    (folder / "function.yaml").write_text("a: 1")
    (folder / "lib" / "x.py").write_text("x = 1")
    return folder


def test_touching_changes_nothing_and_content_does(folder):
    digests = Digests()
    before = digests.of(folder)
    os.utime(folder / "lib" / "x.py", (1, 1))
    assert digests.of(folder) == before
    (folder / "lib" / "x.py").write_text("x = 2")
    assert digests.of(folder) != before
    (folder / "lib" / "x.py").write_text("x = 1")
    assert digests.of(folder) == before


def test_same_size_and_time_is_noticed_by_the_change_time(folder):
    file, digests = folder / "function.yaml", Digests()
    os.utime(file, (1, 1))
    before = digests.of(file)
    file.write_text("a: 2")
    os.utime(file, (1, 1))
    assert digests.of(file) != before


def test_names_count_and_ignored_ones_do_not(folder):
    digests = Digests(["data"])
    before = digests.of(folder)
    (folder / ".x.swp").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("")
    (folder / "data").mkdir()
    (folder / "data" / "values").write_text("1")
    assert digests.of(folder) == before
    (folder / "lib" / "x.py").rename(folder / "lib" / "y.py")
    assert digests.of(folder) != before


def test_files_moved_between_folders_with_the_same_bytes_differ(folder):
    before = Digests().of(folder)
    (folder / "lib" / "x.py").rename(folder / "x.py")
    assert Digests().of(folder) != before


def test_link_in_a_circle_ends(folder):
    (folder / "lib" / "again").symlink_to(folder)
    assert Digests().of(folder)


def test_dangling_link_and_vanished_path(folder):
    (folder / "gone").symlink_to(folder / "nowhere")
    assert Digests().of(folder)
    with pytest.raises(FileNotFoundError):
        Digests().of(folder / "nowhere")
