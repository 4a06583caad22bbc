"""`headrace validate`: findings as lines and as JSON, exit codes, and what is found in a folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.cli.validate import check, functions_under

GOOD = (
    "metadata: {name: a}\nspec: {runtime: python, handler: 'main:handler', triggers: {t: {kind: cron, interval: 1s}}}\n"
)
HANDLER = "def handler(context, event): ...\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "a/function.yaml": GOOD,
        "a/main.py": HANDLER,
        "b/deep/function.json": '{"metadata": {"name": "a"}, "spec": {"runtime": "python", "handler": "main:handler"}}',
        "b/deep/main.py": HANDLER,
        "main.py": HANDLER,
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
    (tmp_path / "main.py").write_text(HANDLER)
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


def test_folder_with_one_source_file_is_a_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is for `headrace run`."""
    (tmp_path / "lamp.py").write_text(HANDLER)
    assert main(["validate", "--strict", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "functions: 1, errors: 0, warnings: 0\n")
    (tmp_path / "lamp.py").write_text("def handler(context, event)\n    return 1\n")
    assert main(["validate", str(tmp_path)]) == 2
    assert capsys.readouterr().out.startswith(f"{tmp_path}/lamp.py:1:28: error: not valid Python: expected ':'")
    (tmp_path / "other.py").write_text(HANDLER)
    assert main(["validate", str(tmp_path)]) == 2
    assert "2 source files and no function.yaml" in capsys.readouterr().out


def test_module_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error in a folder of its own, once; a warning where others' files lie, too, or packages can bring it."""
    (tmp_path / "function.yaml").write_text(GOOD)
    (tmp_path / "mian.py").write_text(HANDLER)
    assert main(["validate", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "error: spec.handler: main.py is not in" in line and "there: mian.py" in line
    (tmp_path / "venv").mkdir()
    assert main(["validate", str(tmp_path)]) == 0
    assert "warning: spec.handler: main.py is not in" in capsys.readouterr().out
    (tmp_path / "loose.yaml").write_text(GOOD)
    assert main(["validate", str(tmp_path / "loose.yaml")]) == 0


def test_handler_that_the_module_does_not_define(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "function.yaml").write_text(GOOD)
    (tmp_path / "main.py").write_text("def handle(context, event): ...\ndef other(): ...\n")
    assert main(["validate", str(tmp_path)]) == 2
    line = f"{tmp_path}/main.py: error: spec.handler: the module does not define 'handler'; did you mean 'handle'?\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("code", "is_defined"),
    [
        ("async def handler(context, event): ...", True),
        ("class handler: ...", True),
        ("try:\n  from fast import run as handler\nexcept ImportError:\n  handler = None", True),
        ("if True:\n  def handler(c, e): ...\nelse:\n  handler = None", True),
        ("(handler, other) = make()", True),
        ("handler: object = make()", True),
        ("def make():\n  global handler\n  handler = 1\nmake()", True),
        ("from elsewhere import *", True),
        ("globals()['handler'] = print", True),
        ("def __getattr__(name): ...", True),
        ("def outer():\n  def handler(c, e): ...", False),
        ("class A:\n  def handler(self): ...", False),
        ("import handlers", False),
        ("x = '\\d'  # a warning of the compiler is not ours to tell", False),
        ("", False),
    ],
)
def test_what_defines_a_handler(tmp_path: Path, code: str, is_defined: bool) -> None:
    (tmp_path / "function.yaml").write_text(GOOD)
    (tmp_path / "main.py").write_text(code)
    assert [item.key for item in check(tmp_path / "function.yaml")] == ([] if is_defined else ["spec.handler"])


def test_code_inside_the_specification(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    code = base64.b64encode(b"def handler(context, event):\n  return (\n").decode()
    file.write_text(GOOD.replace("runtime", f"build: {{functionSourceCode: {code}}}, runtime"))
    (finding,) = check(file)
    assert str(finding).startswith(f"{file}: functionSourceCode:2:10: error: not valid Python: '(' was never closed")


@pytest.mark.parametrize("code", [b"\0", b"x = " + b"(" * 500, b"# coding: nonsense", b"x = '\xff'"])
def test_what_is_no_python_at_all(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "function.yaml").write_text(GOOD)
    (tmp_path / "main.py").write_bytes(code)
    (finding,) = check(tmp_path / "function.yaml")
    assert finding.level == "error" and "not valid Python" in finding.what


def test_syntax_of_a_newer_python_is_only_doubted(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(GOOD.replace("runtime: python", "runtime: 'python:3.99'"))
    (tmp_path / "main.py").write_text("def handler(context, event) => 1")
    (finding,) = check(tmp_path / "function.yaml")
    assert finding.level == "warning"


def test_nothing_of_the_function_runs(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(GOOD)
    (tmp_path / "main.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{HANDLER}")
    assert check(tmp_path / "function.yaml") == []
    assert not (tmp_path / "ran").exists()
