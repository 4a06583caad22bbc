"""Which names in the functions folder are meant for us, and which are the traces of editors and package tools.

Why: an editor writes beside a file before it renames over it; dpkg and rpm leave copies; Python leaves bytecode.
None of them is a function, and none of them may cause a function to be started again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

SPECIFICATIONS = (".yaml", ".yml", ".json")
CODE = (".py",)

_NEVER = re.compile(
    r"^\."  # hidden: .#lock of Emacs, .name.swp and .goutputstream-XXXX, .git, our own temporary names
    r"|~$|^#.*#$"  # backups, Emacs auto-save
    r"|\.(tmp|temp|swp|swo|swx|swpx|bak|orig|rej|part|partial|crdownload|lock|pid|sock)$"
    r"|\.dpkg-[a-z-]+$|\.(rpmnew|rpmsave|rpmorig|ucf-dist|ucf-old|ucf-new|pacnew|pacsave)$"
    r"|^4913$"  # vim asks with this name whether it may write here
    r"|^__pycache__$|\.py[co]$"
    r"|___jb_(tmp|old)___$"
)
_RUN_TIME = re.compile(r"\.(log|db|sqlite3?)(-(journal|wal|shm))?$|\.log\.\d+$")
"""What functions themselves write beside their code: their own notes are no new version of them."""


def ignored(name: str) -> bool:
    """Is a file or folder of that name none of our business?"""
    return bool(_NEVER.search(name))


def is_code(name: str, patterns: Sequence[str] = ()) -> bool:
    """Does a file or folder of that name in a function's folder belong to it? `patterns`: more that does not."""
    return not (ignored(name) or _RUN_TIME.search(name) or any(fnmatchcase(name, item) for item in patterns))


def is_function_file(name: str) -> bool:
    """Can a file of that name, directly in the functions folder, hold a function?"""
    return not ignored(name) and name.lower().endswith(SPECIFICATIONS + CODE)
