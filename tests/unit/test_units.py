"""The systemd unit says nothing that systemd does not understand."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.load import require

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "headrace.service"


def test_the_unit_waits_for_nothing_outside_and_restarts_for_ever() -> None:
    text = UNIT.read_text()
    assert "network.target" not in text and "network-online" not in text
    assert {"Restart=always", "StartLimitIntervalSec=0", "Type=notify"} <= set(text.splitlines())


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = tmp_path / "headrace.service"
    unit.write_text(UNIT.read_text().replace("/opt/headrace/bin/headrace", "/bin/true"))
    said = subprocess.run([require("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True)
    assert [line for line in said.stderr.splitlines() if "headrace.service" in line] == []
