"""Amounts as Kubernetes writes them: "128Mi", "500m", "1.5G", 2. Files hold the text, the code asks for the number."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

_FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_FACTORS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}

PATTERN = r"^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$"
_WHOLE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)

Quantity = (
    Annotated[str, Meta(pattern=PATTERN, description='a quantity such as "128Mi" or "500m"')]
    | Annotated[int, Meta(ge=0)]
    | Annotated[float, Meta(ge=0)]
)


def amount(value: str | int | float | None) -> float:
    """The number a quantity stands for: bytes, cores. 0 for None. Raises ValueError for text that is no quantity."""
    if value is None:
        return 0.0
    if not isinstance(value, str):
        return float(value)
    found = _WHOLE.fullmatch(value)
    if found is None:
        raise ValueError(f"not a quantity: {value!r}")
    return float(found[1] + (found[2] or "")) * _FACTORS[found[3] or ""]


def size_text(size: float) -> str:
    """Bytes for people: 134217728 is "128Mi", 1000 is "1000"."""
    for unit in ("Gi", "Mi", "Ki"):
        if size >= _FACTORS[unit]:
            return f"{size / _FACTORS[unit]:.4g}{unit}"
    return f"{size:.0f}"
