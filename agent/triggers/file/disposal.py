"""What becomes of a file whose event has ended: left and remembered, deleted, or moved.

Flow: Intake -> `Disposal.settle` in the disk thread -> file system and ledger.
Promise: a file is only removed while it still is what the handler got and nobody has it open for writing. With `delete`
and `move` nothing is remembered, so nothing is written beside the removal itself, unless that fails; then the file is
remembered as handled and only the removal is tried again at each rescan. A crash between the handler's success and this
step hands the file over again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from agent.model.event import Outcome, Result
from agent.triggers.file.ledger import Entry, Fate, Ledger, key_of
from agent.triggers.file.reading import Reader, Seen, opened
from agent.triggers.file.selection import Selection, target
from agent.triggers.file.spec import FileSpec

RENAME_NOREPLACE = 1
AT_FDCWD = -100
NOT_OFFERED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@dataclass(slots=True)
class Finished:
    """One file and how its event ended. `changed`: it is not what it was when it was read. `moved_to`: if it was."""

    seen: Seen
    fate: Fate
    changed: bool = False
    moved_to: str = ""


def fate_of(outcome: Outcome) -> Fate | None:
    """None: never started, so nothing has become of it."""
    if outcome.result is Result.STOPPED:
        return None
    return Fate.HANDLED if outcome.ok else Fate.FAILED


class Disposal:
    """Settles the finished files of one trigger, in its disk thread."""

    def __init__(self, spec: FileSpec, selection: Selection, ledger: Ledger, reader: Reader) -> None:
        self._spec, self._selection, self._ledger, self._reader = spec, selection, ledger, reader
        self.counts: Counter[str] = Counter()  # taken and cleared by the loop

    def settle(self, batch: list[Finished]) -> None:
        """Remove or remember every file of the batch; the memory is written once."""
        kept = [item for item in batch if not self._removed(item)]
        self.remember([(item.seen.key, item.seen.entry(self._reader.volume, item.fate)) for item in kept])

    def remember(self, items: list[tuple[int, Entry]]) -> None:
        """Write to the ledger; what cannot be written holds until the end of the process and is counted."""
        try:
            if items:
                self._ledger.add(items)
        except OSError:
            self.counts["remember_failed"] += len(items)

    def retry(self, item: Finished) -> None:
        """A file that was handled is still there: try once more to remove it, if it should be."""
        self._removed(item)

    def _removed(self, item: Finished) -> bool:
        """Delete or move the file if that is wanted and it is unchanged."""
        folder = self._folder(item.fate)
        if folder is None:
            return False
        path = item.seen.path
        try:
            if self._may_still_grow(path, item):
                return False
            item.moved_to = self._remove(path, folder)
        except FileNotFoundError:
            return False  # it may only have got another name meanwhile: remembering it costs little
        except OSError:
            self.counts["remove_failed"] += 1
            return False
        return True

    def _may_still_grow(self, path: str, item: Finished) -> bool:
        """It has changed, which makes one more event; or a writer has it open, and it is kept until the next look."""
        if key_of(os.lstat(path)) != item.seen.key:
            item.changed = True
            return True
        with opened(path) as descriptor:
            still_open = self._reader.is_open(descriptor)
        self.counts["kept_open"] += still_open
        return still_open

    def removes(self, fate: Fate) -> bool:
        """Whether files of this fate are not left where they are."""
        return self._folder(fate) is not None

    def _folder(self, fate: Fate) -> str | None:
        """Where the file goes: a folder, "" for nowhere (deleted), None when it stays."""
        if fate is Fate.HANDLED and self._spec.on_success != "leave":
            return self._spec.move_to
        if fate is Fate.FAILED and self._spec.on_failure == "move":
            return self._spec.error_to
        return None

    def _remove(self, path: str, folder: str) -> str:
        """The new name; empty for a deleted file."""
        if not folder:
            os.unlink(path)
            self.counts["deleted"] += 1
            return ""
        wanted = os.path.join(target(self._selection.root, folder), self._selection.relative(path))
        name = move(path, wanted)
        self.counts["moved"] += 1
        return name


def move(source: str, wanted: str) -> str:
    """Move a file to `wanted`, or to that name with a number where it is taken; the name it got. Raises OSError.

    Never replaces a file. Across file systems: copied under a hidden name, synced, renamed, then unlinked, so that a
    power cut leaves the source or the whole copy.
    """
    os.makedirs(os.path.dirname(wanted), exist_ok=True)
    try:
        return _first_free(source, wanted)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    hidden = os.path.join(os.path.dirname(wanted), f".{os.path.basename(wanted)[:200]}.{os.getpid()}.part")
    try:
        shutil.copy2(source, hidden)
        _sync(hidden)
        name = _first_free(hidden, wanted)
    except OSError:
        with suppress(OSError):
            os.unlink(hidden)
        raise
    _sync(os.path.dirname(wanted))
    os.unlink(source)
    return name


def _first_free(source: str, wanted: str) -> str:
    stem, suffix = os.path.splitext(wanted)
    number = 0
    while True:
        name = f"{stem}-{number}{suffix}" if number else wanted
        try:
            rename_new(source, name)
            return name
        except FileExistsError:
            number += 1


def rename_new(source: str, name: str) -> None:
    """Rename, but never over an existing file: FileExistsError then. Raises OSError."""
    try:
        _renameat2(source, name)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
        if os.path.lexists(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        os.rename(source, name)


def _renameat2(source: str, name: str) -> None:
    """The kernel's rename that refuses to replace; some file systems and C libraries do not offer it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(name), RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
