"""Programs that tests use besides Python: missing on a desk they skip the test, missing in CI they fail it."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, package: str = "") -> str:
    """The path of `program`; `package` is what apt calls it, when it is called otherwise."""
    path = shutil.which(program)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {program}: apt install {package or program}")
    return path
