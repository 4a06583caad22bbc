"""Amounts as Kubernetes writes them."""

from __future__ import annotations

import pytest

from agent.model.quantity import amount, size_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("128Mi", 134217728),
        ("1.5Gi", 1610612736),
        ("500m", 0.5),
        ("2", 2),
        ("1e3", 1000),
        ("1k", 1000),
        (".5", 0.5),
        (3, 3),
        (0.25, 0.25),
        (None, 0),
    ],
)
def test_amounts(text: str | int | float | None, value: float) -> None:
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Mi", "12 Mi", "-1", "1KiB", "1mi", "٣"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        amount(text)


def test_sizes_for_people() -> None:
    assert [size_text(size) for size in (134217728, 1536, 1000, 1610612736)] == ["128Mi", "1.5Ki", "1000", "1.5Gi"]
