"""The file of a function's own stream."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.processor import function_log
from agent.processor.function_log import FunctionLog


async def test_what_a_function_says_is_the_owners_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_log, "_LARGEST_FILE", 10)
    path = tmp_path / "function.log"
    path.touch(0o644)  # as it was made once
    before = os.umask(0)
    try:
        log = FunctionLog("lamp", "debug", path)
        log.line(0, "the customer's name")
        log.close()  # it is too long now, so another is begun
    finally:
        os.umask(before)
    modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in tmp_path.iterdir()}
    assert modes == {"function.log": 0o600, "function.log.1": 0o600}
