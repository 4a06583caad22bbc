"""The longer forms of the mqtt trigger's fault tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_mqtt_restarts import survive


@pytest.mark.parametrize("version", [5, 4])
async def test_broker_killed_ten_times_in_a_stream(tmp_path: Path, version: int) -> None:
    await survive(tmp_path, version)
