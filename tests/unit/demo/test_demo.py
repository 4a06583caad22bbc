"""The demo's arithmetic, its table, and the copies of the examples it makes."""

from __future__ import annotations

import argparse
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from agent.cli.demo import add_arguments
from agent.demo import table as table_module
from agent.demo.broker import MOSQUITTO, NATS, _found
from agent.demo.observe import SOURCES, Row, lost, report, rows_of, succeeded
from agent.demo.place import PREFIX, copy_examples, open_place
from agent.demo.producers import open_line, sentence
from agent.demo.table import Table, cut, duration_text, farewell, lines_of, printable
from agent.model.errors import CommandError, SourceUnavailable
from agent.model.load import load_function

ADDRESSES: dict[str, dict[str, Any]] = {
    "http": {"port": 0},
    "mqtt": {"url": "tcp://127.0.0.1:4711"},
    "serial": {"device": "/dev/pts/99"},
    "file": {"path": "/somewhere/else"},
}


def statistics(**changes: Any) -> dict[str, Any]:
    trigger = {"up": True, "address": "", "handled": 5, "failed": 0, "p50_us": 10.4, "p99_us": 20.6, "last": "x"}
    triggers = {kind: {"state": "serving", "triggers": {"t": {"kind": kind, **trigger}}} for kind in SOURCES}
    for kind, change in changes.items():
        triggers[kind]["triggers"]["t"] |= change  # type: ignore[index, operator]
    return {"functions": triggers}


def test_the_report_has_all_sources_also_those_the_agent_does_not_know_yet() -> None:
    document = report(rows_of({}), {"http": 3})
    assert list(document["sources"]) == list(SOURCES)
    assert document["sources"]["http"] == {"handled": 0, "errors": 0, "lost": 3, "p50_us": 0, "p99_us": 0}
    assert not succeeded(document)


def test_a_demo_succeeds_when_every_source_was_handled_and_nothing_was_lost() -> None:
    sent = dict.fromkeys(SOURCES, 5)
    assert succeeded(report(rows_of(statistics()), sent))
    assert not succeeded(report(rows_of(statistics(file={"handled": 0})), sent | {"file": 0}))
    assert not succeeded(report(rows_of(statistics()), sent | {"mqtt": 6}))


@pytest.mark.parametrize(("sent", "handled", "errors", "expected"), [(5, 5, 0, 0), (5, 3, 1, 1), (5, 9, 0, 0)])
def test_lost_is_what_left_and_was_not_finished(sent: int, handled: int, errors: int, expected: int) -> None:
    assert lost(Row("http", handled=handled, errors=errors), sent) == expected


def test_every_example_is_pointed_at_the_demos_parts_and_loads(tmp_path: Path) -> None:
    with open_place(tmp_path / "demo") as place:
        names = copy_examples(place, ADDRESSES)
        found = {}
        for name in names:
            loaded = load_function(place.functions / name)
            assert not loaded.warnings
            for trigger in loaded.function.spec.triggers.values():
                found[trigger.kind] = trigger
    assert sorted(found) == sorted(SOURCES)
    specs: Any = found
    assert (specs["http"].port, specs["mqtt"].url) == (0, "tcp://127.0.0.1:4711")
    assert (specs["serial"].device, specs["file"].path) == ("/dev/pts/99", "/somewhere/else")


def test_the_folder_is_removed_unless_it_is_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_place(None) as place:
        assert place.root.name.startswith(PREFIX)
    assert not list(tmp_path.iterdir())
    with open_place(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept" / "functions.d").is_dir()
    with pytest.raises(CommandError, match="not empty"), open_place(tmp_path / "kept"):
        pass


def test_the_broker_is_mosquitto_else_the_one_of_the_extra_else_a_clear_error() -> None:
    assert _found(lambda name, path: f"/bin/{name}") == ("/bin/mosquitto", MOSQUITTO)
    assert _found(lambda name, path: "/venv/nats-server" if name == "nats-server" else None)[1] == NATS
    with pytest.raises(SourceUnavailable, match=r"headrace\[demo\]"):
        _found(lambda name, path: None)


def test_a_serial_line_leaves_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open_line() as (device, path):
        assert Path(path).is_char_device()
        assert not os.get_blocking(device)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not Path(path).exists()


def test_a_sentence_has_its_checksum() -> None:
    assert sentence("WIMTA,21.4,C") == b"$WIMTA,21.4,C*1C\r\n"


class Terminal(io.StringIO):
    """Says it is a terminal, of 80 columns."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_table_redrawn_in_place_and_its_cursor_back() -> None:
    out = Terminal()
    with Table(out) as table:
        table.draw(rows_of(statistics(http={"last": "a" * 300})), "try this")
        table.draw(rows_of(statistics()), "try this")
    text = out.getvalue()
    assert text.startswith("\x1b[?25l")
    assert text.endswith("\x1b[?25h")
    assert text.count("\x1b[8F") == 1
    assert "a" * 300 not in text


class Screen:
    """The little of a terminal that the table uses, on which a full line wraps at once. `gone` scrolled off its top."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.shown, self.gone = [""] * lines, [""]
        self.row = 0

    def resize(self, columns: int, lines: int) -> None:
        """What is too long now wraps, as terminals do it."""
        text = "\n".join(self.gone[1:] + self.shown[: self.row]) + "\n"
        self.__init__(columns, lines)  # type: ignore[misc]
        self.write(text)

    def write(self, text: str) -> None:
        for code, char in re.findall(r"\x1b\[(\??\d*[A-Za-z])|(.|\n)", text):
            if code.endswith("F"):
                self.row = max(0, self.row - int(code[:-1]))
            elif code == "2J":
                self.shown = [""] * self.lines
            elif code == "H":
                self.row = 0
            elif code == "2K":
                self.shown[self.row] = ""
            elif char:
                self._put(char)

    def _put(self, char: str) -> None:
        if char != "\n":
            self.shown[self.row] += char
        if char == "\n" or len(self.shown[self.row]) >= self.columns:
            self.row += 1
        if self.row == self.lines:
            self.gone.append(self.shown.pop(0))
            self.shown.append("")
            self.row -= 1


@pytest.mark.parametrize("size", [(80, 24), (79, 9), (40, 8), (20, 5), (1, 2), (5, 2), (200, 7)])
def test_the_table_fits_any_terminal_also_one_whose_size_changes(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, screen, now = Terminal(), Screen(120, 30), [120, 30]
    monkeypatch.setattr(table_module.os, "get_terminal_size", lambda _: tuple(now))
    monkeypatch.setattr(out, "fileno", lambda: 1)
    with Table(out) as table:
        for turn in range(6):
            if turn == 2:
                now[:] = size
                screen.resize(*size)
            if turn == 3:
                screen.gone.clear()  # what the change of size itself pushed off
            out.seek(out.truncate(0))
            table.draw(rows_of(statistics(http={"last": "a" * 300})), "try this")
            screen.write(out.getvalue())
            if turn >= 3:
                assert screen.gone == []
                assert screen.shown[0][:6] == "source"[: max(0, size[0] - 1)]
                assert sum(line.startswith("source") for line in screen.shown) <= 1


def test_a_character_may_take_two_columns_or_none() -> None:
    assert [cut("温度 21", columns) for columns in (1, 2, 3, 4, 9)] == ["", "温", "温", "温度", "温度 21"]
    assert cut("e\u0301e\u0301", 1) == "e\u0301"


def test_the_end_in_one_sentence() -> None:
    rows = rows_of(statistics(cron={"failed": 2}))
    assert farewell(rows, 0) == "25 events handled, 2 failed, none lost"
    assert farewell(rows, 3) == "25 events handled, 2 failed, 3 lost"


def test_anything_else_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with Table(out) as table:
        for _ in range(5):
            table.draw(rows_of(statistics(cron={"failed": 2})))
    assert out.getvalue() == "http 5  mqtt 5  serial 5  file 5  cron 5 (2 errors)\n"


def test_what_a_handler_answers_cannot_move_the_cursor() -> None:
    rows = rows_of(statistics(http={"last": "\x1b[2Jgone\r\nmore"}))
    assert not any("\x1b" in line or "\r" in line for line in lines_of(rows))
    assert printable(" a\tb\x07 ") == "a b"


def test_latencies_for_people() -> None:
    assert [duration_text(us) for us in (0, 12.4, 1500, 2_500_000)] == ["-", "12 us", "1.5 ms", "2.5 s"]


@pytest.mark.parametrize("text", ["20", "x", "-5s", "0s"])
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["--for", "1m30s"]).for_s == 90.0
    with pytest.raises(SystemExit):
        parser.parse_args(["--for", text])
    assert "20s" in capsys.readouterr().err
