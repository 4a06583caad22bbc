"""Confines this process, then becomes the worker: joins its groups, takes its limits, becomes its user.

Why a program: limits must hold before the first instruction of the function, in every language, and a process can only
bind itself. Flow: processor -> `python -I -S confine.py COMMAND...` -> COMMAND; a Python worker that was forked and has
no command calls `confine` itself. Imports the standard library alone. What to do is in HEADRACE_CONFINEMENT, as JSON:

    {"join": [FILE...], "rlimits": {"NOFILE": N, ...}, "identity": [UID, GID, [GID...]]}     each may be left out

Promise: confined as told, or exit code 78 with the reason on stderr; never half.
"""

from __future__ import annotations

import json
import os
import resource
import sys

VARIABLE = "HEADRACE_CONFINEMENT"
EXIT_UNCONFINED = 78


def confine(told: str) -> None:
    """Bind this process and all it will start. Raises OSError, ValueError."""
    what = json.loads(told)
    for file in what.get("join", ()):
        with open(file, "w") as members:
            members.write("0")  # whoever writes it
    for name, most in what.get("rlimits", {}).items():
        _limit(getattr(resource, f"RLIMIT_{name}"), most)
    if "identity" in what:
        uid, gid, groups = what["identity"]
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)


def _limit(kind: int, most: int) -> None:
    _, hardest = resource.getrlimit(kind)
    if hardest != resource.RLIM_INFINITY:
        most = min(most, hardest)
    # One second between the signal that can be told from others (SIGXCPU) and the one that cannot.
    hard = most + 1 if kind == resource.RLIMIT_CPU and most != hardest else most
    resource.setrlimit(kind, (most, hard))


def main() -> None:
    """Replace this process with the command."""
    try:
        confine(os.environ.pop(VARIABLE))
        os.execvp(sys.argv[1], sys.argv[1:])
    except PermissionError as error:
        who = f"user {os.geteuid()} and group {os.getegid()}"
        fail(f"{error.strerror}, as {who}: {error.filename or ' '.join(sys.argv[1:])}")
    except (OSError, ValueError, KeyError, IndexError) as error:
        fail(str(error))


def fail(why: str) -> None:
    """The last words of this process; they become the reason why the function cannot start."""
    print(f"the worker cannot be confined: {why}", file=sys.stderr)
    sys.exit(EXIT_UNCONFINED)


if __name__ == "__main__":
    main()
