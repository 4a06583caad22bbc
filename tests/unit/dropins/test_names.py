from __future__ import annotations

import pytest

from agent.dropins.names import ignored, is_code, is_function_file


@pytest.mark.parametrize(
    "name",
    [
        ".blink.yaml.swp", ".#blink.yaml", "blink.yaml~", "#blink.yaml#", "blink.yaml.tmp", "blink.yaml.dpkg-new",
        "blink.yaml.dpkg-dist", "blink.yaml.rpmnew", "blink.yaml.rpmsave", "blink.swp", "4913", ".goutputstream-AB12",
        "blink.yaml___jb_tmp___", "blink.yaml.bak", "__pycache__", "main.cpython-311.pyc", ".git", "blink.yaml.part",
    ],
)  # fmt: skip
def test_traces_of_editors_and_package_tools_are_ignored(name):
    assert ignored(name)
    assert not is_function_file(name)
    assert not is_code(name)


@pytest.mark.parametrize("name", ["blink.yaml", "10-blink.yml", "blink.json", "blink.py", "Blink.YAML"])
def test_functions(name):
    assert is_function_file(name)


@pytest.mark.parametrize("name", ["README.md", "blink.txt", "notes", "main.js"])
def test_other_files_are_no_functions_but_may_be_code(name):
    assert not is_function_file(name)
    assert is_code(name)


@pytest.mark.parametrize("name", ["run.log", "run.log.1", "store.db", "store.sqlite3-wal", "data.csv"])
def test_what_functions_write_is_no_code(name):
    assert not is_code(name, ["*.csv"])
