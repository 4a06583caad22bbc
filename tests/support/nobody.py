"""Tests of missing rights, for whoever runs them: root may open anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Without root's right to open anything, if this is root."""
    if os.geteuid() != 0:
        yield
        return
    for path in [folder, *folder.parents]:
        if path.stat().st_mode & 0o055 != 0o055:
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
