"""What a disk that fills in the middle of a write leaves behind."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from agent.triggers.file.record_log import RecordLog

LAYOUT = struct.Struct("<Q")


class Disk:
    """Stands before `os.write`: `room` bytes are left, the call that meets the end writes a part and says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


def numbers(path: Path) -> list[int]:
    log = RecordLog(path, LAYOUT)
    found = [number for (number,) in log.replay()]
    assert log.damaged == 0
    log.close()
    return found


def test_what_does_not_fit_is_not_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordLog(tmp_path / "log", LAYOUT)
    log.append([(1,)])
    disk = Disk(monkeypatch, room=17)
    with pytest.raises(OSError, match="No space") as caught:
        log.append([(2,), (3,)])
    assert caught.value.errno == errno.ENOSPC
    disk.room = 1000
    log.append([(4,)])  # aligned with what was there
    log.close()
    assert numbers(tmp_path / "log") == [1, 4]


def test_a_truncated_file_never_replaces_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordLog(tmp_path / "log", LAYOUT)
    log.append([(1,), (2,)])
    disk = Disk(monkeypatch, room=17)
    with pytest.raises(OSError, match="No space"):
        log.rewrite([(1,), (2,), (3,)])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log", "log.lock"]
    disk.room = 1000
    log.append([(5,)])
    log.close()
    assert numbers(tmp_path / "log") == [1, 2, 5]


def test_a_write_in_parts_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:5]))
    log = RecordLog(tmp_path / "log", LAYOUT)
    log.append([(1,), (2,)])
    log.rewrite([(3,), (4,)])
    log.append([(5,)])
    log.close()
    assert numbers(tmp_path / "log") == [3, 4, 5]
