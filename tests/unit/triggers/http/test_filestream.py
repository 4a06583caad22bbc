"""A file as the body of a reply, read on a thread."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agent.model.event import Outcome, Result
from agent.triggers.http import filestream
from agent.triggers.http.request import PLAIN
from agent.triggers.http.response import Encoder


def asking_for(path: Path, *more: tuple[str, str]) -> filestream.FileReply:
    headers = [("x-nuclio-FILESTREAM-path", str(path)), *more]
    reply = filestream.requested(Outcome(Result.REPLIED, 200, "a/b", headers), False)
    assert reply is not None
    return reply


async def answer(reply: filestream.FileReply, present: bool = True, meanwhile: Any = None) -> tuple[bool, bytes]:
    """Was it sent in full, and what was sent. `meanwhile` is called after each piece."""
    sent = b""

    def write(data: bytes) -> None:
        nonlocal sent
        sent += data
        if meanwhile is not None:
            meanwhile()

    async def writable() -> bool:
        return present

    encoder = Encoder(lambda what: None)
    encoder.refresh(0)
    before = set(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1) as reader:
        complete = await filestream.answer(reply, PLAIN, encoder, reader, write, writable)
    assert set(os.listdir("/proc/self/fd")) == before
    return complete, sent


def test_only_asked_for_with_a_path() -> None:
    assert filestream.requested(Outcome(Result.REPLIED, 200, "", [("X", "1")]), False) is None
    assert filestream.requested(Outcome(Result.REPLIED, 200, "", [("X-Nuclio-Filestream-Path", "")]), False) is None


async def test_whole_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 600_000)
    complete, sent = await answer(asking_for(tmp_path / "f"))
    assert complete
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"Content-Length: 600000" in head
    assert len(body) == 600_000


async def test_what_cannot_be_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, status in (("none", b"404"), ("pipe", b"500"), (".", b"500"), ("a\0b", b"500")):
        complete, sent = await answer(asking_for(tmp_path / name))
        assert complete
        assert sent[9:12] == status


async def test_file_that_shrinks_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 1_000_000)
    complete, _ = await answer(asking_for(path), meanwhile=lambda: os.truncate(path, 10))
    assert not complete


async def test_deleted_after_sending_also_when_the_client_left(tmp_path: Path) -> None:
    for present in (True, False):
        path = tmp_path / "f"
        path.write_bytes(b"x")
        complete, _ = await answer(asking_for(path, ("X-Nuclio-Filestream-Delete-After-Send", "")), present)
        assert complete is present
        assert not path.exists()
