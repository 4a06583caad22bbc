"""`headrace validate`: findings as lines and as JSON, exit codes, and what is found in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.cli.validate import functions_under

GOOD = (
    "metadata: {name: a}\nspec: {runtime: python, handler: 'main:handler', triggers: {t: {kind: cron, interval: 1s}}}\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "a/function.yaml": GOOD,
        "a/main.py": "",
        "b/deep/function.json": '{"metadata": {"name": "a"}, "spec": {"runtime": "python", "handler": "main:handler"}}',
        "b/deep/main.py": "",
        "main.py": "",
        "drop-in.yaml": GOOD,
        "kind.yml": "kind: NuclioFunction\n" + GOOD,
        "agent.yaml": "functionsDir: x\n",
        "a/schema.json": '{"properties": {"spec": {}, "metadata": {}}}',
        "broken.json": "{",
        "package.json": '{"name": "x"}',
        ".hidden.yaml": GOOD,
        ".git/function.yaml": GOOD,
        "node_modules/x/function.yaml": GOOD,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_what_is_found_in_a_folder(folder: Path) -> None:
    found = [str(item.relative_to(folder)) for item in functions_under(folder)]
    assert found == ["drop-in.yaml", "kind.yml", "a/function.yaml", "b/deep/function.json"]


def test_all_is_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--strict", str(folder)]) == 0
    assert capsys.readouterr() == ("", "functions: 4, errors: 0, warnings: 0\n")


def test_errors_and_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "main.py").touch()
    file = tmp_path / "x.yaml"
    file.write_text(GOOD.replace("runtime", "evn: 1, runtime"))
    assert main(["validate", str(file)]) == 0
    assert main(["validate", str(file), "--strict"]) == 2
    line = f"{file}:2:8: warning: spec.evn: unknown key, ignored; did you mean 'env'?\n"
    assert capsys.readouterr().out == line * 2
    file.write_text(GOOD.replace("1s", "1").replace("runtime", "evn: 1, runtime"))
    assert main(["validate", str(file)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0] + "\n" == line
    assert out[1].startswith(f"{file}:2:95: error: spec.triggers.t.interval: expected a duration")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: b: c")
    assert main(["validate", "--json", str(file)]) == 2
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["level"], finding["file"], finding["line"], finding["column"]) == ("error", str(file), 1, 5)
    assert "not valid YAML" in finding["what"] and finding["fix"]


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)]) == 2
    assert "no function in this folder" in capsys.readouterr().out
    assert main(["validate", str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().out


def test_each_file_is_checked_though_one_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a" / "function.yaml").write_bytes(b"\xff")
    assert main(["validate", str(folder)]) == 2
    assert capsys.readouterr().err == "functions: 4, errors: 1, warnings: 0\n"
