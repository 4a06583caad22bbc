"""What the file trigger remembers: survives, stays small, and a damaged record harms nothing else."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from agent.model.errors import SourceUnavailable
from agent.triggers.file import ledger as ledger_module
from agent.triggers.file.ledger import Entry, Fate, Ledger, key_of
from agent.triggers.file.positions import Positions, position_at
from agent.triggers.file.record_log import COMPACT_ABOVE, RecordLog

PAIR = struct.Struct("<QQ")


def pairs(path: Path) -> list[tuple[int, int]]:
    log = RecordLog(path, PAIR)
    found = list(log.replay())
    log.close()
    return found  # type: ignore[return-value]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "a.log", PAIR)
    assert log.fresh
    log.append([(1, 2), (3, 4)])
    log.append([(5, 6)])
    log.close()
    assert pairs(tmp_path / "a.log") == [(1, 2), (3, 4), (5, 6)]


@pytest.mark.parametrize("cut", range(1, 20))
def test_torn_end_is_cut_off_and_new_records_are_readable(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.log"
    log = RecordLog(path, PAIR)
    log.append([(1, 1), (2, 2)])
    log.close()
    os.truncate(path, path.stat().st_size - cut)
    log = RecordLog(path, PAIR)
    assert list(log.replay()) == [(1, 1)]
    log.append([(3, 3)])
    log.close()
    assert pairs(path) == [(1, 1), (3, 3)]


def test_damaged_record_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = RecordLog(path, PAIR)
    log.append([(1, 1), (2, 2), (3, 3)])
    log.close()
    data = bytearray(path.read_bytes())
    data[25] ^= 0xFF
    path.write_bytes(data)
    assert pairs(path) == [(1, 1), (3, 3)]


def test_rewriting_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = RecordLog(path, PAIR)
    log.append([(n, n) for n in range(COMPACT_ABOVE // 20 + 10)])
    assert log.worth_rewriting(live=10)
    log.rewrite([(7, 7)])
    log.append([(8, 8)])
    log.close()
    assert pairs(path) == [(7, 7), (8, 8)]


def test_two_processes_never_share_a_log(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "a.log", PAIR)
    with pytest.raises(SourceUnavailable):
        RecordLog(tmp_path / "a.log", PAIR)
    log.close()
    RecordLog(tmp_path / "a.log", PAIR).close()


def test_ledger_knows_content_by_its_head(tmp_path: Path) -> None:
    """The inode number of a deleted file is used again, perhaps with the same size and time."""
    ledger = Ledger(tmp_path / "handled.log")
    ledger.add([(1, Entry(9, 5, Fate.HANDLED)), (2, Entry(9, 0, Fate.SEEN))])
    ledger.close()
    ledger = Ledger(tmp_path / "handled.log")
    assert ledger.find(1, lambda: 5) == Entry(9, 5, Fate.HANDLED)
    assert ledger.find(1, lambda: 6) is None
    assert ledger.find(2, lambda: 6) == Entry(9, 0, Fate.SEEN)
    assert ledger.find(3, lambda: 5) is None
    ledger.close()


def test_ledger_forgets_what_two_walks_did_not_see(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "handled.log")
    ledger.add([(key, Entry(9, 1, Fate.HANDLED)) for key in (1, 2, 3)])
    ledger.keep_only({1, 2}, 9)
    assert len(ledger) == 3
    ledger.keep_only({1, 3}, 9)
    assert len(ledger) == 3
    ledger.keep_only({1, 3}, 9)
    assert (len(ledger), ledger.fate(2)) == (2, None)
    ledger.close()


def test_ledger_keeps_a_bounded_number_of_files_of_another_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is not mounted now: its folder is empty, yet its files were handled."""
    monkeypatch.setattr(ledger_module, "ABSENT", 10)
    ledger = Ledger(tmp_path / "handled.log")
    ledger.add([(key, Entry(1, 1, Fate.HANDLED)) for key in range(1, 16)])
    for _ in range(3):
        ledger.keep_only(set(), 2)
    assert [key for key in range(1, 16) if ledger.fate(key)] == list(range(6, 16))
    ledger.close()


def test_key_changes_with_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    os.utime(path, ns=(1, 1))
    first = key_of(path.stat())
    os.rename(path, tmp_path / "g")
    assert key_of((tmp_path / "g").stat()) == first
    os.utime(tmp_path / "g", ns=(1, 2))
    assert key_of((tmp_path / "g").stat()) != first


def test_position_fits_its_file_a_copy_and_nothing_else(tmp_path: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(100))
    for name, content in (
        ("a", text),
        ("copy", text + "more"),
        ("other", text.replace("3", "4")),
        ("short", text[:300]),
    ):
        (tmp_path / name).write_text(content)
    files = {name: os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "copy", "other", "short")}
    place = position_at(files["a"], 1, 500)
    assert place.fits(files["a"]) and place.fits(files["copy"])
    assert not place.fits(files["other"])
    assert place.begins(files["short"]) and not place.begins(files["copy"])
    for descriptor in files.values():
        os.close(descriptor)


def test_positions_survive_and_are_rewritten(tmp_path: Path) -> None:
    positions = Positions(tmp_path / "positions.log")
    (tmp_path / "f").write_text("x" * 5000)
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    for offset in range(5000):
        positions.put([position_at(descriptor, 7, offset)])
    os.close(descriptor)
    positions.close()
    assert (tmp_path / "positions.log").stat().st_size < COMPACT_ABOVE + 4096
    again = Positions(tmp_path / "positions.log")
    found = again.get(7)
    assert found and found.offset == 4999
    again.close()


def test_what_cannot_be_written_holds_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "handled.log")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            ledger.add([(1, Entry(9, 5, Fate.HANDLED))])
    assert ledger.fate(1) is Fate.HANDLED
    ledger.close()
