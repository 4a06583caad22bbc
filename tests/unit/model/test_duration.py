from __future__ import annotations

import pytest

from agent.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("500ms", 0.5), ("1s", 1), ("2m30s", 150), ("1h", 3600), ("1.5h", 5400), (".5s", 0.5),
        ("1.s", 1), ("100us", 1e-4), ("100µs", 1e-4), ("3ns", 3e-9), ("-1s", -1), ("+1s", 1), ("1h1m1s1ms", 3661.001),
    ],
)  # fmt: skip
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "1", "s", "1 s", "1d", "1S", "s1", "1s2", ".", ".s", "--1s", "1_0s", "٣s", "9" * 20 + "h", "inf", "nan"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.5, "500ms"), (1, "1s"), (1.5, "1.5s"), (90, "1m30s"), (3600, "1h"), (3660, "1h1m"),
        (1e-4, "100us"), (3e-9, "3ns"), (0.0015, "1.5ms"), (-2.5, "-2.5s"), (7 * 86400, "168h"),
    ],
)  # fmt: skip
def test_shortest_spelling(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds)
