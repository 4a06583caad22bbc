"""What tests need of a machine: missing on a desk it skips the test, missing in CI it fails it."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip, or in CI fail, the test that runs: nobody reads which tests CI has skipped."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(program: str, package: str = "") -> str:
    """The path of `program`; `package` is what apt calls it, when it is called otherwise."""
    path = shutil.which(program)
    if path is None:
        lacking(f"needs {program}: apt install {package or program}")
    return path


def need_module(name: str) -> Any:
    """That Python module."""
    try:
        return importlib.import_module(name)
    except ImportError:
        lacking(f"needs {name}: pip install {name}")
