"""The nurseries' answers: late ones, refusals, and requests that cannot be met."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from agent.nursery import processors
from agent.nursery.processors import Nursery
from agent.processor.nursery import LARGEST, WorkerNursery


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_late_answer_is_never_taken_for_another_question() -> None:
    (ours, theirs), (workers, workers_end) = pair(), pair()
    with ours, theirs, workers, workers_end:
        ours.settimeout(0.01)
        nursery = Nursery(ours, workers)
        with pytest.raises(OSError, match="gone"):
            nursery.fork(Path("/a"), {}, 0, [])
        theirs.send(json.dumps({"id": 1, "pid": 4711}).encode())
        with pytest.raises(OSError, match="gone"):
            nursery.fork(Path("/b"), {}, 0, [])


def test_what_the_nursery_cannot_do_is_an_error_and_not_the_end() -> None:
    (ours, theirs), (workers, workers_end) = pair(), pair()
    with ours, theirs, workers, workers_end:
        nursery = Nursery(ours, workers)
        theirs.send(json.dumps({"id": 1, "error": "cannot fork: no more processes"}).encode())
        with pytest.raises(OSError, match="no more processes"):
            nursery.fork(Path("/a"), {}, 0, [])
        theirs.send(json.dumps({"id": 2, "pid": 4711}).encode())
        assert nursery.fork(Path("/a"), {}, 0, []) == 4711


def test_the_processors_nursery_survives_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair()

    def fail() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "fork", fail)
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(processors.signal, "signal", lambda *_: None)
    monkeypatch.setattr(processors, "_rename", lambda _: None)
    with ours, theirs:
        ours.send(json.dumps({"id": 1, "folder": "/a", "env": {}, "listeners": []}).encode())
        ours.send(json.dumps({"id": 2, "folder": "/b", "env": {}, "listeners": []}).encode())
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(SystemExit):
            processors._serve(theirs, lambda folder: 0)
        assert "cannot fork" in json.loads(ours.recv(LARGEST))["error"]
        assert json.loads(ours.recv(LARGEST))["id"] == 2


async def test_an_environment_too_large_for_a_message_is_refused_before_it_is_sent() -> None:
    ours, theirs = pair()
    with theirs:
        nursery = WorkerNursery(ours.detach())
        with pytest.raises(OSError, match="too large"):
            await nursery.fork({"A": "x" * LARGEST}, "/", [0], print)
        nursery.close()
