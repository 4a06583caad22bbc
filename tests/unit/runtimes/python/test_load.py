"""Finding the handler; saying why it was not found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nuclio_sdk._worker.load import HandlerError, failure_text, init_context_of, load_handler

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def file(name: str, code: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)

    yield file
    for name in set(sys.modules) - before:
        del sys.modules[name]


HANDLER = "def handler(context, event): return 'x'\n"


@pytest.mark.parametrize(
    ("file", "handler"),
    [
        ("plain_one.py", "plain_one:handler"),
        ("batch-http-func.py", "batch-http-func:handler"),
        ("folder/inner.py", "folder.inner:handler"),
        ("plain_two.py", "plain_two"),
    ],
)
def test_handlers(tmp_path: Path, write: Write, file: str, handler: str) -> None:
    write(file, HANDLER)
    assert load_handler(handler, str(tmp_path))(None, None) == "x"


def test_a_handler_in_a_class(tmp_path: Path, write: Write) -> None:
    write("classy.py", "class A:\n    @staticmethod\n    def run(context, event): return 'a'\n")
    assert load_handler("classy:A.run", str(tmp_path))(None, None) == "a"


def test_init_context_is_looked_up_where_the_handler_is_defined(tmp_path: Path, write: Write) -> None:
    write("inner_one.py", HANDLER + "def init_context(context): return 'inner'\n")
    write("outer_one.py", "from inner_one import handler\ndef init_context(context): return 'outer'\n")
    init_context = init_context_of(load_handler("outer_one:handler", str(tmp_path)))
    assert init_context is not None and init_context(None) == "inner"
    write("none_one.py", HANDLER)
    assert init_context_of(load_handler("none_one:handler", str(tmp_path))) is None


@pytest.mark.parametrize("handler", ["", ":", "a:b:c", "a b:c", "a/b:c", "a..b:c"])
def test_malformed(tmp_path: Path, handler: str) -> None:
    with pytest.raises(HandlerError, match="malformed"):
        load_handler(handler, str(tmp_path))


def test_missing_module_names_those_there(tmp_path: Path, write: Write) -> None:
    write("main_one.py", HANDLER)
    with pytest.raises(HandlerError, match=r"no module 'mian_one' in .*; modules there: main_one"):
        load_handler("mian_one:handler", str(tmp_path))


def test_missing_function_names_those_there(tmp_path: Path, write: Write) -> None:
    write("main_two.py", "import os\nfrom json import loads\ndef hanlder(context, event): ...\n")
    with pytest.raises(HandlerError, match=r"no function 'handler'; it has: hanlder$"):
        load_handler("main_two:handler", str(tmp_path))


def test_a_librarys_module_instead_of_the_functions(tmp_path: Path) -> None:
    with pytest.raises(HandlerError, match="rename the file"):
        load_handler("json:handler", str(tmp_path))


def test_not_callable(tmp_path: Path, write: Write) -> None:
    write("main_three.py", "handler = 5\n")
    with pytest.raises(HandlerError, match="is a int, not a function"):
        load_handler("main_three:handler", str(tmp_path))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def f():\n    raise ValueError('bad')\nf()\n", "ValueError: bad"),
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_why_an_import_failed(tmp_path: Path, write: Write, code: str, expected: str) -> None:
    name = f"broken_{abs(hash(code))}"
    write(f"{name}.py", code)
    with pytest.raises(BaseException) as caught:
        load_handler(f"{name}:handler", str(tmp_path))
    text = failure_text("cannot import", caught.value, str(tmp_path))
    assert text.startswith("cannot import: ") and expected in text and f"{name}.py" in text
    assert "load.py" not in text and "importlib" not in text
