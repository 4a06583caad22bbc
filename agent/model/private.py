"""Folders that are ours alone although they lie where everybody may write, such as /tmp.

Flow: `headrace run`, agent -> [private] -> sockets by which functions are called. Whoever owns such a folder, or may
write to it, could answer in our place.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from agent.model.errors import CommandError


def private_folder(folder: Path, option: str) -> Path:
    """The folder, made with mode 0700 where it is missing.

    Raises CommandError where it is not ours alone, OSError where it cannot be made. `option` is how to give another.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = os.lstat(folder)
    fix = f"remove it (rm -r {folder}), or give another with {option}"
    if not stat.S_ISDIR(status.st_mode):
        raise CommandError("this is no folder", where=str(folder), fix=fix)
    if status.st_uid != os.geteuid():
        raise CommandError("this folder belongs to another user", where=str(folder), fix=fix)
    if status.st_mode & 0o022:
        raise CommandError("other users may write to this folder", where=str(folder), fix=fix)
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
