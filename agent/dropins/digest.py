"""A fingerprint of what a function was made from: it changes when content changes, and only then.

Why: touching a file, copying the same content over it, or a watch that reports too much must not start anything again.
Promise: a file whose size, times and inode are as before is not read again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.dropins.names import is_code

Identity = tuple[int, int, int, int, int]

RACY_NS = 20_000_000
"""A file changed this short before it was read may change again within the same time stamp: do not trust its stat."""


class Digests:
    """Remembers the fingerprint of each file by its identity. `patterns`: names in folders to leave out."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = patterns
        self._files: dict[str, tuple[Identity, bytes]] = {}

    def of(self, path: Path) -> str:
        """Of a file, or of everything in a folder that belongs to a function. Raises OSError when it is gone."""
        total = hashlib.blake2b(digest_size=16)
        if not path.is_dir():
            total.update(self._file(str(path)))
            return total.hexdigest()
        for relative, kind, content in self._walk(str(path), ""):
            total.update(f"{kind}{len(relative)}:{relative}".encode(errors="surrogateescape"))
            total.update(content)
        return total.hexdigest()

    def forget(self, path: Path) -> None:
        """Its function is gone."""
        prefix = f"{path}/"
        for name in [name for name in self._files if name == str(path) or name.startswith(prefix)]:
            del self._files[name]

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, str, bytes]]:
        """Sorted, so that the order on disk does not count. Links to folders count by their target's name."""
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if not is_code(entry.name, self._patterns):
                continue
            relative = prefix + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(entry.path, relative + "/")
                elif entry.is_symlink() and entry.is_dir():
                    yield relative, "l", os.readlink(entry.path).encode(errors="surrogateescape")
                elif entry.is_file():
                    mode = "x" if entry.stat().st_mode & stat.S_IXUSR else "f"
                    yield relative, mode, self._file(entry.path)
            except FileNotFoundError:
                continue

    def _file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
            known = self._files.get(path)
            if known is not None and known[0] == identity:
                return known[1]
            digest = hashlib.file_digest(file, "blake2b").digest()[:16]
        if time.time_ns() - info.st_ctime_ns > RACY_NS:
            self._files[path] = (identity, digest)
        else:
            self._files.pop(path, None)
        return digest
