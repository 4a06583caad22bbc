"""The worker nursery: Python workers forked from a process in which all they need is imported already.

Why: a fresh interpreter costs each worker about 50 ms and 7 MB; a fork costs a millisecond, and shares its memory.
Flow: the agent forks the nursery before it imports anything of its own, so that a worker finds only the standard
library and `nuclio_sdk`. Each processor gets a socket to it, asks for workers through it, and is told how they ended.
End-of-file on that socket means that the processor is gone: its workers are killed, so none outlives it, and a busy
one neither. When the nursery itself dies the kernel kills its workers, and processors start them by command line.

Messages are JSON, one a packet, descriptors beside them:

    agent -> nursery      {}                                  + the nursery's end of a processor's socket
    processor -> nursery  {"id": N, "env": {...}, "cwd": D}   + event bell, reply bell, stdout, stderr
    nursery -> processor  {"id": N, "pid": P}, later {"pid": P, "status": S} (negative: minus the signal)
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LARGEST = 1 << 18
"""Bytes of one message. A larger environment does not fit: such a worker is started the long way."""

BELLS_AND_STREAMS = 4


def start() -> socket.socket:
    """Fork the nursery of this process, which must have a single thread. Returns the socket to ask it through."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gc.freeze()  # here, not after: a collection touches, and so copies, all it looks at
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(theirs)
    theirs.close()
    return ours


def _serve(control: socket.socket) -> NoReturn:
    """Until the agent is gone, and then until the last processor is."""
    _withdraw("headrace-wnurse")
    gc.disable()
    _preload()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))  # a few for every worker of the device
    _own_limits.append(most)
    gc.freeze()
    gc.enable()  # for the workers: this process makes no garbage
    _Nursery(control).serve()


def _preload() -> None:
    """Import what a worker needs, asyncio included, and forget everything of the agent's."""
    import asyncio  # noqa: F401

    from runtimes.python import worker

    path = sys.path[:]
    sys.path[:] = [worker.SDK, *path]
    for module in ("nuclio_sdk._worker.start", "nuclio_sdk._worker.coroutines"):
        importlib.import_module(module)

    sys.path[:] = path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("agent", "runtimes", "shmem", "bindings"):
            _kept.append(sys.modules.pop(name))
    globals()["worker_main"] = worker.main


_own_limits: list[tuple[int, int]] = []  # what a worker gets back

_kept: list[object] = []  # modules taken out of sys.modules stay alive: their code runs us


def _withdraw(name: str) -> None:
    """Leave the agent's process group: Ctrl-C and SIGTERM to it end processors in order, not us."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _rename(name)


def _rename(name: str) -> None:
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:  # only what `ps` shows
        comm.write(name)


class _Nursery:
    """The parent of all workers of this device. Blocks in one poll."""

    def __init__(self, control: socket.socket) -> None:
        self._poll = select.poll()
        self._control: socket.socket | None = control
        self._processors: dict[int, socket.socket] = {}  # by descriptor
        self._workers: dict[int, tuple[int, int]] = {}  # pidfd -> pid, the processor's descriptor
        self._unsaid: dict[int, list[bytes]] = {}  # by descriptor
        self._poll.register(control, select.POLLIN)

    def serve(self) -> NoReturn:
        """Never returns."""
        while self._control is not None or self._processors:
            for descriptor, ready in self._poll.poll():
                if descriptor in self._workers:
                    self._ended(descriptor)
                elif descriptor in self._processors:
                    processor = self._processors[descriptor]
                    well = not ready & select.POLLOUT or self._say_rest(processor)
                    if not well or (ready & ~select.POLLOUT and not self._asked(processor)):
                        self._forget(descriptor)
                elif self._control is not None and not self._introduced(self._control):
                    self._poll.unregister(self._control)
                    self._control.close()
                    self._control = None
        os._exit(0)

    def _introduced(self, control: socket.socket) -> bool:
        message, descriptors = _receive(control, 1)
        for descriptor in descriptors:
            self._processors[descriptor] = socket.socket(fileno=descriptor)
            self._poll.register(descriptor, select.POLLIN)
        return bool(message)

    def _asked(self, processor: socket.socket) -> bool:
        message, descriptors = _receive(processor, BELLS_AND_STREAMS)
        if not message:
            return False
        try:
            request = json.loads(message)
        except ValueError:
            return False
        try:
            pid, pidfd = self._fork(request, descriptors)
        except OSError as error:  # no process or no descriptor is left
            return self._say(processor, {"id": request["id"], "error": f"cannot fork: {error.strerror}"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._workers[pidfd] = pid, processor.fileno()
        self._poll.register(pidfd, select.POLLIN)
        return self._say(processor, {"id": request["id"], "pid": pid})

    def _fork(self, request: dict[str, object], descriptors: list[int]) -> tuple[int, int]:
        """Returns once the worker leads its own session, so that its number can be used to end all of it."""
        started, starts = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(request, descriptors, starts)
        finally:
            os.close(starts)
            with os.fdopen(started, "rb") as line:
                line.read(1)  # it ends when the worker closes its end, or ends
        try:
            return pid, os.pidfd_open(pid)
        except OSError:
            _kill_group(pid)
            os.waitpid(pid, 0)
            raise

    def _ended(self, pidfd: int) -> None:
        pid, descriptor = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _kill_group(pid)  # before it is waited for: until then the number can only be its own
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if descriptor in self._processors:
            self._say(self._processors[descriptor], {"pid": pid, "status": status})

    def _say(self, processor: socket.socket, message: dict[str, object]) -> bool:
        """What does not fit now is said later: a processor that hangs must not hold up the others."""
        unsaid = self._unsaid.setdefault(processor.fileno(), [])
        unsaid.append(json.dumps(message).encode())
        return self._say_rest(processor)

    def _say_rest(self, processor: socket.socket) -> bool:
        unsaid = self._unsaid[processor.fileno()]
        try:
            while unsaid:
                processor.send(unsaid[0], socket.MSG_DONTWAIT)
                unsaid.pop(0)
        except BlockingIOError:
            pass
        except OSError:
            return False
        self._poll.modify(processor, select.POLLIN | (select.POLLOUT if unsaid else 0))
        return True

    def _forget(self, descriptor: int) -> None:
        """The processor is gone: so are its workers."""
        self._poll.unregister(descriptor)
        self._processors.pop(descriptor).close()
        self._unsaid.pop(descriptor, None)
        for pidfd, (pid, owner) in self._workers.items():
            if owner == descriptor:
                _kill_group(pid)
                self._workers[pidfd] = pid, -1

    def _become_worker(self, request: dict[str, object], descriptors: list[int], starts: int) -> NoReturn:
        status = 70
        try:
            os.setsid()
            os.close(starts)
            _take_over(self, request, descriptors)
            status = int(globals()["worker_main"]())
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            _end(status)


def _end(status: int) -> NoReturn:
    """What the end of an interpreter does and users count on, then leave without running the nursery's own frames."""
    import atexit

    try:
        import threading

        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _take_over(nursery: _Nursery, request: dict[str, object], descriptors: list[int]) -> None:
    """Turn this fork into what a fresh `python worker.py` finds."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_NOFILE, _own_limits[0])
    for pidfd in nursery._workers:
        os.close(pidfd)
    for inherited in (nursery._control, *nursery._processors.values()):
        if inherited is not None:
            inherited.close()
    event, reply, out, err = descriptors
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    # New objects: the agent's may know their file as one that can be sought in.
    sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
    environment = dict(request["env"])  # type: ignore[call-overload]
    settings = json.loads(environment["HEADRACE_WORKER"]) | {"parent_pid": os.getppid()}
    environment |= {
        "HEADRACE_EVENT_FD": str(event),
        "HEADRACE_REPLY_FD": str(reply),
        "HEADRACE_WORKER": json.dumps(settings),
    }
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["cwd"]))
    _rename(str(settings["function"]))


def _receive(sender: socket.socket, most: int) -> tuple[bytes, list[int]]:
    try:
        message, descriptors, _, _ = socket.recv_fds(sender, LARGEST, most)
    except OSError:
        return b"", []
    return message, descriptors


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
