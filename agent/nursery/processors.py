"""The processor nursery: processors forked from a process in which all they need is imported already.

Why: a fresh interpreter costs each function about 200 ms and 20 MB before it does anything; a fork costs a few
milliseconds and shares its memory. Flow: the agent, before it has an event loop or a second thread, forks the nursery;
the supervisor asks it for a processor and becomes that one's parent: the nursery forks twice and lets go, and orphans
fall to the agent, which is a subreaper. If the nursery is ever gone, processors are started by command line again.

    agent -> nursery  {"id": N, "folder": DIR, "env": {...}, "listeners": [T, ...]}
                      + link, socket to the worker nursery, one socket a listener
    nursery -> agent  {"id": N, "pid": P} or {"id": N, "error": TEXT}
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
_PATIENCE_S = 3.0

Run = Callable[[str], int]


def start(run: Run, *not_theirs: socket.socket) -> socket.socket:
    """Fork the nursery of this process, which must have a single thread. `run(folder)` is what a processor does;
    `not_theirs` are sockets of the agent that no fork may hold open.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # here, not after: a collection touches, and so copies, all it looks at
    if os.fork() == 0:
        for inherited in (ours, *not_theirs):
            inherited.close()
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
        request = json.loads(message)
        try:
            between = os.fork()
            if between == 0:
                _fork_again(control, request, descriptors, run)
            os.waitpid(between, 0)
        except OSError as error:
            _say(control, {"id": request["id"], "error": f"cannot fork: {error.strerror}"})
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_again(control: socket.socket, request: dict[str, Any], descriptors: list[int], run: Run) -> NoReturn:
    """Between the nursery and the processor, for a moment: with our end the processor is the agent's child."""
    try:
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_processor(request, descriptors, run)
        _say(control, {"id": request["id"], "pid": pid})
    except OSError as error:
        _say(control, {"id": request["id"], "error": f"cannot fork: {error.strerror}"})
    finally:
        os._exit(0)


def _say(control: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(answer).encode())


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
        self._number = 0
        self._gone = False

    def fork(self, folder: Path, env: dict[str, str], link: int, listeners: list[tuple[str, int]]) -> int:
        """Pid of a new processor, which will be our child. Raises OSError when a nursery is gone or cannot.

        Waits for the answer, a few milliseconds. A nursery that does not answer in time counts as gone, for ever: what
        it may still say would be taken for the answer to another question.
        """
        if self._gone:
            raise BrokenPipeError("the nursery is gone")
        self._number += 1
        nurserys_end, processors_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with nurserys_end, processors_end:
            _send(self._workers, {}, [nurserys_end.fileno()])
            request = {
                "id": self._number,
                "folder": str(folder),
                "env": env,
                "listeners": [trigger for trigger, _ in listeners],
            }
            _send(self._processors, request, [link, processors_end.fileno(), *(fd for _, fd in listeners)])
        return self._answer()

    def _answer(self) -> int:
        try:
            answer = json.loads(self._processors.recv(LARGEST) or b"{}")
        except OSError:
            answer = {}
        if answer.get("id") != self._number:
            self._gone = True
            raise BrokenPipeError("the nursery is gone")
        if "pid" not in answer:
            raise OSError(answer.get("error", "the nursery cannot fork"))
        return int(answer["pid"])


def _send(to: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    to.sendmsg([json.dumps(message).encode()], ancillary)
