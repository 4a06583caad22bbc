"""What the operator is told when a port cannot be opened; and a port with every setting."""

import errno
import os
import termios
from pathlib import Path
from typing import Any

import pytest
import serial

from agent.model.errors import SourceUnavailable
from agent.triggers.serial.port import open_port
from agent.triggers.serial.spec import Rs485, SerialSpec


def spec(**keys: Any) -> SerialSpec:
    return SerialSpec(kind="serial", device="/dev/ttyX", **keys)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (serial.SerialException(errno.EACCES, "no"), r"permission denied; add the user .* \(usermod -aG \w+ USER\)"),
        (serial.SerialException(errno.EBUSY, "no"), "locked by another program"),
        (serial.SerialException(errno.EWOULDBLOCK, "no"), "locked by another program"),
        (serial.SerialException(errno.ENOENT, "no"), "no device behind this name"),
        (OSError(errno.EIO, "no"), "no device behind this name"),
        (termios.error(errno.EINVAL, "no"), "cannot be set up"),
        (ValueError("Failed to set RS485 mode"), "cannot be set up: Failed to set RS485 mode"),
    ],
)
def test_every_failure_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(self: serial.Serial) -> None:
        raise error

    monkeypatch.setattr(serial.Serial, "open", fail)
    with pytest.raises(SourceUnavailable, match=told) as caught:
        open_port(str(tmp_path / "ttyX"), spec())
    assert caught.value.retry
    assert caught.value.where == str(tmp_path / "ttyX")


@pytest.mark.parametrize(
    "settings",
    [
        {"baud_rate": 115200, "data_bits": 7, "parity": "even", "stop_bits": 2.0, "rtscts": True, "dsrdtr": True},
        {"baud_rate": 250_000, "parity": "space", "xonxoff": True, "hangup_on_close": True, "dtr": False},
    ],
)
async def test_the_settings_reach_the_terminal(settings: dict[str, Any]) -> None:
    master, slave = os.openpty()
    port = open_port(os.ttyname(slave), spec(**settings))
    try:
        iflag, oflag, cflag, lflag, _, _, characters = termios.tcgetattr(slave)
        assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert not oflag & termios.OPOST
        assert not iflag & (termios.BRKINT | termios.ICRNL | termios.ISTRIP)
        assert bool(iflag & termios.IXOFF) == settings.get("xonxoff", False)
        assert bool(cflag & termios.CRTSCTS) == settings.get("rtscts", False)
        assert bool(cflag & termios.HUPCL) == settings.get("hangup_on_close", False)
        assert characters[termios.VMIN] in (1, b"\x01")
    finally:
        port.close()
        port.close()
        os.close(slave)
        os.close(master)


async def test_rs485_on_a_driver_without_it_is_told_and_leaks_nothing() -> None:
    master, slave = os.openpty()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SourceUnavailable, match="RS485"):
        open_port(os.ttyname(slave), spec(rs485=Rs485()))
    assert os.listdir("/proc/self/fd") == before
    os.close(slave)
    os.close(master)
