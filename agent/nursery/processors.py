"""The processor nursery: processors forked from a process in which all they need is imported already.

Why: a fresh interpreter costs each function about 200 ms and 20 MB before it does anything; a fork costs a few
milliseconds and shares its memory. Flow: the agent, before it has an event loop or a second thread, forks the nursery;
the supervisor asks it for a processor and becomes that one's parent: the nursery forks twice and lets go, and orphans
fall to the agent, which is a subreaper. If the nursery is ever gone, processors are started by command line again.

    agent -> nursery  {"folder": DIR, "env": {...}, "listeners": [T, ...]}
                      + link, socket to the worker nursery, one socket a listener
    nursery -> agent  {"pid": P}
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 1 << 18
MOST_DESCRIPTORS = 250
_PATIENCE_S = 5.0

Run = Callable[[str], int]


def start(run: Run) -> socket.socket:
    """Fork the nursery of this process, which must have a single thread. `run(folder)` is what a processor does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # here, not after: a collection touches, and so copies, all it looks at
    if os.fork() == 0:
        ours.close()
        _serve(theirs, run)
    theirs.close()
    ours.settimeout(_PATIENCE_S)
    return ours


def _serve(control: socket.socket, run: Run) -> NoReturn:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _rename("headrace-pnurse")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LARGEST, MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_processor(json.loads(message), descriptors, run)
            control.send(json.dumps({"pid": pid}).encode())
            os._exit(0)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_processor(request: dict[str, Any], descriptors: list[int], run: Run) -> NoReturn:
    status = 70
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(request["env"])
        link, workers, *listeners = descriptors
        os.environ["HEADRACE_AGENT_FD"] = str(link)
        os.environ["HEADRACE_NURSERY_FD"] = str(workers)
        pairs = zip(request["listeners"], listeners, strict=True)
        os.environ["HEADRACE_LISTEN"] = ",".join(f"{trigger}:{descriptor}" for trigger, descriptor in pairs)
        _rename(Path(request["folder"]).parent.name)
        status = run(request["folder"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _rename(name: str) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


class Nursery:
    """The agent's side of both nurseries: forks a processor and introduces it to the worker nursery."""

    def __init__(self, processors: socket.socket, workers: socket.socket) -> None:
        self._processors = processors
        self._workers = workers

    def fork(self, folder: Path, env: dict[str, str], link: int, listeners: list[tuple[str, int]]) -> int:
        """Pid of a new processor, which will be our child. Raises OSError when a nursery is gone or does not answer."""
        nurserys_end, processors_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with nurserys_end, processors_end:
            _send(self._workers, {}, [nurserys_end.fileno()])
            request = {"folder": str(folder), "env": env, "listeners": [trigger for trigger, _ in listeners]}
            _send(self._processors, request, [link, processors_end.fileno(), *(fd for _, fd in listeners)])
        answer = self._processors.recv(LARGEST)
        if not answer:
            raise BrokenPipeError("the nursery is gone")
        return int(json.loads(answer)["pid"])

    def close(self) -> None:
        """Both nurseries end; what they forked goes on."""
        self._processors.close()
        self._workers.close()


def _send(to: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    to.sendmsg([json.dumps(message).encode()], ancillary)
