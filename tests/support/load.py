"""A load of HTTP requests beside a test: wrk, and what it saw."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.tools import lacking


@dataclass
class Load:
    """Filled in when the block ends. `errors` are connections refused, cut or timed out; `refused` answers over 399."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    output: str = ""


def require(program: str) -> str:
    """Its path. Missing: a failure in CI, a skip on a desk."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        lacking(f"{program} is not installed")
    return path


@contextlib.contextmanager
def load(address: str, seconds: int, connections: int = 32) -> Iterator[Load]:
    """Requests from `connections` connections for `seconds`; leaving the block waits for the end."""
    command = [require("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", address]
    seen = Load()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield seen
            seen.output, _ = process.communicate(timeout=seconds + 30)
        finally:
            process.kill()
    seen.requests = int((re.search(r"(\d+) requests in", seen.output) or [0, 0])[1])
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", seen.output)
    seen.errors = sum(map(int, errors.groups())) if errors else 0
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", seen.output)
    seen.refused = int(refused[1]) if refused else 0
