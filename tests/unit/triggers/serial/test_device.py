"""Which paths a spec may mean, among names and USB identities."""

from pathlib import Path
from typing import Any

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from agent.triggers.serial.device import candidates
from agent.triggers.serial.spec import Match, SerialSpec


def spec(device: Path | str = "", **match: Any) -> SerialSpec:
    return SerialSpec(kind="serial", device=str(device), match=Match(**match) if match else None)


def test_a_pattern_finds_what_is_there_in_natural_order(tmp_path: Path) -> None:
    for name in ("ttyUSB10", "ttyUSB2", "ttyACM0"):
        (tmp_path / name).touch()
    (tmp_path / "ttyUSB1").symlink_to(tmp_path / "gone")
    assert candidates(spec(tmp_path / "ttyUSB*")) == [str(tmp_path / "ttyUSB2"), str(tmp_path / "ttyUSB10")]
    assert candidates(spec(tmp_path / "ttyS*")) == []
    assert candidates(spec(tmp_path / "absent")) == []


def test_a_name_with_brackets_is_taken_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "usb-[x]").touch()
    assert candidates(spec(tmp_path / "usb-[x]")) == [str(tmp_path / "usb-[x]")]


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Two adapters of one maker and a port that says nothing of itself."""
    ports = []
    for name, vid, serial_number, product in (
        ("ttyUSB0", 0x0403, "A900", "FT232R USB UART"),
        ("ttyUSB1", 0x0403, "B100", "FT4232H"),
        ("ttyS0", None, None, None),
    ):
        (tmp_path / name).touch()
        port = ListPortInfo(str(tmp_path / name))
        port.vid, port.pid, port.serial_number, port.product = vid, vid and 0x6001, serial_number, product
        ports.append(port)
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    return [port.device for port in ports]


def test_an_adapter_is_found_by_what_it_is(adapters: list[str]) -> None:
    assert candidates(spec(vid="0403", pid=0x6001, serial_number="B100")) == [adapters[1]]
    assert candidates(spec(vid=0x0403)) == adapters[:2]
    assert candidates(spec(product="FT232*")) == [adapters[0]]
    assert candidates(spec(vid="0x1a86")) == []
    assert candidates(spec(serial_number="*", pid="6001")) == adapters[:2]
