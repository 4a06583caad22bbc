"""The Python worker: runs one function's handler, fed by its processor through a channel in shared memory.

Why a program of its own: it runs under the function's interpreter and virtual environment, so it imports the standard
library and the channel's extension, nothing else. A function's own `agent.py`, `worker.py` or `shmem` never collides
with ours: the extension is loaded by path, and what we import stands under the one name `nuclio_sdk`, which every
function may import anyway.

Started as `python worker.py`, in the environment that shmem/PROTOCOL.md lists, plus `HEADRACE_CHANNEL_LIB`: the
extension's path.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import signal
import sys
from typing import Any

HERE = os.path.dirname(os.path.realpath(__file__))
SDK = os.path.join(HERE, "sdk")
CHANNEL = "nuclio_sdk._channel"  # the last part must be the extension's own name: it tells the init function


def load_channel(path: str) -> Any:
    """The channel's extension from `path`, out of sight of `import shmem`."""
    loader = importlib.machinery.ExtensionFileLoader(CHANNEL, path)
    spec = importlib.machinery.ModuleSpec(CHANNEL, loader, origin=path)
    module = loader.create_module(spec)
    loader.exec_module(module)
    return module


def main() -> int:
    """Serve until the processor says stop. Exit code 0; 1 when the function cannot be loaded; 2 when run by hand."""
    if "HEADRACE_WORKER" not in os.environ:
        print("worker.py is started by a processor; to run a function by hand: headrace run PATH", file=sys.stderr)
        return 2
    if "HEADRACE_CONFINEMENT" in os.environ:
        _confine(os.environ.pop("HEADRACE_CONFINEMENT"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the processor's business: it drains us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        # a line a write: print() shows at once, and costs one system call, not one a piece
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    libraries = _without_function(sys.path)
    sys.path[:] = [SDK, *libraries]  # our own imports before the function's folder can shadow a module
    start = importlib.import_module("nuclio_sdk._worker.start")
    settings = start.Settings(os.environ)
    channel = load_channel(os.environ.pop("HEADRACE_CHANNEL_LIB"))
    _use_function_path(settings.code_dir, libraries)
    return int(start.run(channel, settings))


def _confine(told: str) -> None:
    """A worker that was forked takes its limits itself; one that was started by command line has them already."""
    path = os.path.join(os.path.dirname(HERE), "confine.py")
    loader = importlib.machinery.SourceFileLoader("nuclio_sdk._confine", path)
    module = type(sys)(loader.name)
    loader.exec_module(module)
    try:
        module.confine(told)
    except (OSError, ValueError) as error:
        print(f"the worker cannot be confined: {error}", file=sys.stderr)
        sys.exit(module.EXIT_UNCONFINED)


def _use_function_path(code_dir: str, libraries: list[str]) -> None:
    """The function's folder first, for its imports and for those of Python programs that it starts."""
    sys.path[:] = [code_dir, *libraries, SDK]  # SDK last: for processes that multiprocessing spawns
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([code_dir, given] if given else [code_dir])


def _without_function(path: list[str]) -> list[str]:
    """The search path without this program's folder, which Python put there, and the function's, the current one."""
    own = (HERE, os.getcwd())
    return [entry for entry in path if entry and os.path.realpath(entry) not in own]


if __name__ == "__main__":
    sys.exit(main())
