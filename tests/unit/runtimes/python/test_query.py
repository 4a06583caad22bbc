from __future__ import annotations

import pytest
from nuclio_sdk._worker.query import pairs_of_query


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        (b"", []),
        (b"a=1&b=2", [(b"a", b"1"), (b"b", b"2")]),
        (b"a&=b&&c=", [(b"a", b""), (b"", b"b"), (b"c", b"")]),
        (b"a=b=c", [(b"a", b"b=c")]),
        (b"a+b=%41%2b%fF", [(b"a b", b"A+\xff")]),
        (b"a=100%&b=%zz&c=%4", [(b"a", b"100%"), (b"b", b"%zz"), (b"c", b"%4")]),
        (b"%=%%41", [(b"%", b"%A")]),
    ],
)
def test_pairs(query: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    assert pairs_of_query(query) == pairs
