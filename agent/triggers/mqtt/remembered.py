"""Which filters the broker's session may hold, kept across restarts and versions of the function.

Why: a persistent session keeps its subscriptions. When a new version of a function drops one, nobody but us can tell
the broker, and only if we still know its name. Written when the set changes, not at every connect. A lost or broken
file costs no message: everything wanted is subscribed again, only a dropped filter may then stay.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


class Remembered:
    """The filters of one client id at one broker."""

    def __init__(self, folder: Path, broker: str, client_id: str) -> None:
        self._path = folder / "subscriptions.json"
        self._session = hashlib.sha256(f"{broker}\n{client_id}".encode()).hexdigest()[:16]
        self.filters: frozenset[str] = self._load()

    def _load(self) -> frozenset[str]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["session"] != self._session:
                return frozenset()
            return frozenset(str(item) for item in stored["filters"])
        except (OSError, ValueError, KeyError, TypeError):
            return frozenset()

    def save(self, filters: frozenset[str]) -> None:
        """Atomic. Blocks for a disk write when the set has changed: call it in a thread. Raises OSError."""
        if filters == self.filters and self._path.exists():
            return
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"session": self._session, "filters": sorted(filters)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self.filters = filters
