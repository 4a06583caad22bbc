"""The channel's benchmark still runs: every kind of figure is there, and a peer that can not start says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.channel import registry, report, run
from tests.bench.channel.peer import Peer, Unfit, require

ROOT = Path(__file__).parents[2]
OWN = [entry for entry in registry.PEERS if entry.name in ("headrace", "mp.Pipe")]
SHORT = run.Lengths(one_way_s=0.01, busy_s=0.01, idle_count=5, paced_count=5, traced_count=0, rounds=1)


@pytest.fixture
def without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_traced", lambda *_: None)


def test_every_kind_of_figure(without_tracing: None) -> None:
    rows = run.measure(OWN, [0, 128], SHORT)
    assert [(row["peer"], row["size"]) for row in rows] == [
        ("headrace", 0),
        ("mp.Pipe", 0),
        ("headrace", 128),
        ("mp.Pipe", 128),
    ]
    for row in rows:
        assert "why_not" not in row
        assert row["one_way"]["per_s"] > 0
        assert row["idle"]["count"] == 5
        assert 0 < row["busy"]["p50_us"] <= row["busy"]["p99_us"] <= row["busy"]["p99_9_us"]
        assert ("paced" in row) == (row["size"] == 128)


class _Missing(Peer):
    def __init__(self, size: int) -> None:
        require("no_such_module", "no-such-package")


class _Broken(Peer):
    def near(self) -> Any:
        raise OSError("no more descriptors")

    def far(self) -> Any:
        raise ValueError("the far side is at a loss")


@pytest.mark.parametrize(
    ("peer", "why"), [(_Missing, "pip install no-such-package"), (_Broken, "ValueError: the far side is at a loss")]
)
def test_a_peer_that_can_not_start_is_a_row_that_says_why(
    monkeypatch: pytest.MonkeyPatch, peer: type[Peer], why: str
) -> None:
    monkeypatch.setattr(registry, "load", lambda entry: peer)
    (row,) = run.measure(OWN[:1], [128], SHORT)
    assert why in row["why_not"]["start"]
    assert "one_way" not in row


def test_a_wrong_length_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = OWN[1]
    loaded = registry.load(entry)

    class Cuts(loaded):  # type: ignore[valid-type, misc]
        def near(self) -> Any:
            end = super().near()
            send = end.send
            end.send = lambda body: send(body[1:])
            return end

    monkeypatch.setattr(registry, "load", lambda entry: Cuts)
    with pytest.raises(Unfit, match="127 bytes, not 128"):
        pair = run.start(entry, 128)
        try:
            pair.one_way(3)
        finally:
            pair.close()


def test_the_command_writes_json_that_compares(tmp_path: Path) -> None:
    made = tmp_path / "a.json"
    command = [sys.executable, "-m", "tests.bench.channel", "--quick", "--only", "mp.Pipe", "--json", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=50)
    figures = json.loads(made.read_text())
    assert figures["machine"]["cores"]
    assert "mp.Pipe 128 one_way per_s" in report.compare(figures, figures)
    assert "| mp.Pipe |" in report.text(figures)
