"""Durations as Go writes them: "500ms", "1.5s", "2m30s", "1h". Files hold the text, the code holds seconds."""

from __future__ import annotations

import re

from agent.model.spec import Duration

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S = 2**63 / 1e9
"""What Go can hold: about 292 years."""

_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_WHOLE = re.compile(rf"[+-]?(?:{_PART})+", re.ASCII)
_PARTS = re.compile(_PART, re.ASCII)


def parse_duration(text: str) -> Duration:
    """Seconds of a Go duration. Raises ValueError for anything else, such as a number without a unit."""
    if text == "0":
        return Duration(0.0)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"not a duration: {text!r}")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in _PARTS.findall(text))
    if seconds >= LONGEST_S:
        raise ValueError(f"longer than Go can hold: {text!r}")
    return Duration(-seconds if text[0] == "-" else seconds)


def format_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back as the same value to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    if rest < 10**9:
        unit, size = next((u, n) for u, n in (("ms", 10**6), ("us", 10**3), ("ns", 1)) if rest >= n)
        return f"{sign}{_decimal(rest, size)}{unit}"
    hours, rest = divmod(rest, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    parts = [(hours, f"{hours}h"), (minutes, f"{minutes}m"), (rest, f"{_decimal(rest, 10**9)}s")]
    return sign + "".join(text for amount, text in parts if amount)


def _decimal(count: int, size: int) -> str:
    whole, rest = divmod(count, size)
    digits = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
