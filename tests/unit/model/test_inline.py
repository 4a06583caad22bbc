"""`@nuclio.configure` blocks, by nuclio's rules."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from agent.model.errors import SpecError
from agent.model.load import load_function, load_text

BLOCK = """#!/usr/bin/env python3
# Copyright somebody

# @nuclio.configure
#
# function.yaml:
#   metadata:
#     name: from-block
#   spec:
#     description: inner
#     triggers:
#       w:
#         kind: widget
#         attributes: {port: 5}

def handler(context, event):
    pass
"""


def write(folder: Path, text: str, name: str = "My_Lamp.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_block_after_shebang_and_licence(tmp_path: Path) -> None:
    loaded = load_function(write(tmp_path, BLOCK))
    assert loaded.function.metadata.name == "from-block"
    assert loaded.function.spec.handler == "My_Lamp:handler"
    assert loaded.function.spec.triggers["w"].port == 5  # type: ignore[attr-defined]
    assert loaded.code_file == tmp_path / "My_Lamp.py"
    assert loaded.warnings == []


def test_block_to_the_end_of_the_file(tmp_path: Path) -> None:
    text = BLOCK.partition("\ndef")[0].rstrip("\n")
    assert load_function(write(tmp_path, text)).function.metadata.name == "from-block"


def test_no_block(tmp_path: Path) -> None:
    loaded = load_function(write(tmp_path, "def handler(c, e): ...\n    # @nuclio.configure\n"))
    assert loaded.function.metadata.name == "my-lamp"
    assert (loaded.function.spec.runtime, loaded.function.spec.handler) == ("python", "My_Lamp:handler")
    assert list(loaded.function.spec.triggers) == ["default-http"]
    assert loaded.warnings == []


def test_places_are_those_of_the_source_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"My_Lamp\.py:14:30: spec\.triggers\.w\.attributes\.port: expected a whole"):
        load_function(write(tmp_path, BLOCK.replace("port: 5", "port: x")))


@pytest.mark.parametrize("yaml", ["#   spec: [", "#   a: b: c", "#   spec: &x *y"])
def test_bad_yaml_says_what_tools_look_for(tmp_path: Path, yaml: str) -> None:
    with pytest.raises(SpecError, match=r"My_Lamp\.py:4:\d+: Failed to parse inline configuration"):
        load_function(write(tmp_path, f"# @nuclio.configure\n#\n# function.yaml:\n{yaml}\nx = 1\n"))


def test_other_top_keys_are_ignored(tmp_path: Path) -> None:
    text = "# @nuclio.configure\n#\n# createFiles: {}\n# function.yaml:\n#   spec: {description: d}\n"
    loaded = load_function(write(tmp_path, text))
    assert loaded.function.spec.description == "d"
    assert "createFiles" in str(loaded.warnings[0])
    assert load_function(write(tmp_path, "# @nuclio.configure\n#\n")).function.spec.description == ""
    with pytest.raises(SpecError, match="Failed to parse inline configuration: not a mapping"):
        load_function(write(tmp_path, "# @nuclio.configure\n#\n# - a\n"))


def test_slashes_in_other_languages() -> None:
    code = b"// @nuclio.configure\n//\n// function.yaml:\n//   spec: {description: d, handler: 'a:b'}\nx\n"
    spec = f"{{runtime: golang, build: {{functionSourceCode: {base64.b64encode(code).decode()}}}}}"
    with pytest.raises(SpecError) as caught:
        load_text(f"metadata: {{name: a}}\nspec: {spec}", "f")
    assert "no runtime 'golang'" in str(caught.value)  # and nothing about the block, which was read


def test_the_file_wins_over_the_block(tmp_path: Path) -> None:
    write(tmp_path, BLOCK, "lamp.py")
    config = write(tmp_path, "metadata: {name: outer}\nspec: {build: {path: lamp.py}}", "drop.yaml")
    loaded = load_function(config)
    assert (loaded.function.metadata.name, loaded.function.spec.description) == ("outer", "inner")
    assert (loaded.code_dir, loaded.code_file) == (tmp_path, tmp_path / "lamp.py")


def test_source_in_another_encoding_and_size(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n" + BLOCK.encode() + b"#" * (2 << 20))
    assert load_function(file).function.metadata.name == "from-block"
