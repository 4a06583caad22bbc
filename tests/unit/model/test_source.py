"""One path leads to specification and code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.model.errors import SpecError
from agent.model.load import load_function

SPEC = "metadata: {name: a}\nspec: {runtime: python, handler: 'main:handler', disableDefaultHTTPTrigger: true}"


@pytest.mark.parametrize("name", ["function.yaml", "function.yml", "function.json", "processor.yaml"])
def test_folder(tmp_path: Path, name: str) -> None:
    text = '{"metadata": {"name": "a"}, "spec": {"runtime": "python", "handler": "main:handler"}}'
    (tmp_path / name).write_text(text)
    (tmp_path / "main.py").touch()
    loaded = load_function(tmp_path)
    assert (loaded.code_dir, loaded.source, loaded.code_file) == (tmp_path, tmp_path, None)
    assert loaded.warnings == []
    assert load_function(tmp_path / name).code_dir == tmp_path


def test_folder_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "processor.yaml").write_text(SPEC)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").touch()
    assert load_function(tmp_path).code_dir == tmp_path / "code"


def test_folder_with_one_source_file(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("def handler(c, e): ...")
    assert load_function(tmp_path).function.spec.handler == "hello:handler"
    (tmp_path / "other.py").touch()
    with pytest.raises(SpecError, match="2 source files and no function"):
        load_function(tmp_path)


def test_build_path(tmp_path: Path) -> None:
    code = tmp_path / "src"
    code.mkdir()
    (code / "main.py").touch()
    file = tmp_path / "drop.yaml"
    file.write_text(SPEC.replace("spec: {", "spec: {build: {path: src}, "))
    loaded = load_function(file)
    assert loaded.code_dir is not None and loaded.code_dir.samefile(code)
    assert loaded.warnings == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere", "does not exist"),
        ("http://x/y.zip", "from a URL is not supported yet"),
        ("a.zip", "in an archive is not supported yet"),
        ('"a\\0b"', "spec.build.path"),
    ],
)
def test_build_path_that_cannot_be_used(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "a.zip").touch()
    file = tmp_path / "drop.yaml"
    file.write_text(SPEC.replace("spec: {", f"spec: {{build: {{path: {path}}}, "))
    with pytest.raises(SpecError) as caught:
        load_function(file)
    assert says in str(caught.value) and "drop.yaml:2:" in str(caught.value)


def test_names_and_runtime_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "My Lamp"
    folder.mkdir()
    (folder / "lamp.py").touch()
    (folder / "function.yaml").write_text("spec: {disableDefaultHTTPTrigger: true}")
    loaded = load_function(folder)
    spec = loaded.function.spec
    assert (loaded.function.metadata.name, spec.runtime, spec.handler) == ("my-lamp", "python", "lamp:handler")
    assert "metadata.name: not given, 'my-lamp' is used" in str(loaded.warnings[0])


def test_module_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(SPEC)
    (tmp_path / "mian.py").touch()
    warning = str(load_function(tmp_path).warnings[0])
    assert "spec.handler: main.py is not in" in warning and "there: mian.py" in warning


def test_what_is_no_function(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "text.yaml").write_text("hello\n")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "secret.yaml").touch(mode=0o000)
    cases = {
        "nowhere.yaml": "no such file or folder",
        "notes.txt": "neither a specification nor source code",
        "empty.yaml": "the file is empty",
        "list.yaml": "no mapping at its top",
        "text.yaml": "no mapping at its top",
        "folder.yaml": "no function here",
        "pipe.yaml": "not a regular file",
        "": "no function here",
    }
    if os.getuid() != 0:
        cases["secret.yaml"] = "cannot be read"
    for name, says in cases.items():
        with pytest.raises(SpecError, match=says):
            load_function(tmp_path / name)


def test_path_with_a_zero_byte() -> None:
    with pytest.raises(SpecError):
        load_function(Path("a\0b"))
