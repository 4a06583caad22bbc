"""Cross-origin rules."""

import pytest

from agent.triggers.http.cors import VARY_PREFLIGHT, CorsRules
from agent.triggers.http.spec import Cors

QUESTION = {b"origin": b"http://a", b"access-control-request-method": b"POST"}


def test_preflight_is_its_method_with_its_header() -> None:
    rules = CorsRules(Cors(preflight_request_method="OPTIONS"))
    assert rules.is_preflight(b"OPTIONS", QUESTION)
    assert not rules.is_preflight(b"GET", QUESTION)
    assert not rules.is_preflight(b"OPTIONS", {b"origin": b"http://a"})


def test_preflight_that_is_granted() -> None:
    rules = CorsRules(Cors(allow_origins=("http://a",), allow_methods=("GET", "POST"), allow_headers=("X-A", "x-b")))
    status, lines = rules.preflight(QUESTION | {b"access-control-request-headers": b"x-a,X-B"})
    assert status == 200
    assert lines == (
        b"Access-Control-Allow-Origin: http://a\r\nAccess-Control-Max-Age: 5\r\n"
        b"Access-Control-Allow-Methods: GET, POST\r\n"
        b"Access-Control-Allow-Headers: X-A, x-b\r\n" + VARY_PREFLIGHT
    )


@pytest.mark.parametrize(
    "change",
    [
        {b"origin": b"http://b"},
        {b"origin": b""},
        {b"access-control-request-method": b"BREW"},
        {b"access-control-request-headers": b"accept, x-other"},
    ],
)
def test_preflight_that_is_not(change: dict[bytes, bytes]) -> None:
    rules = CorsRules(Cors(allow_origins=("http://a",)))
    assert rules.preflight(QUESTION | change) == (400, VARY_PREFLIGHT)


def test_ordinary_requests() -> None:
    rules = CorsRules(Cors(allow_origins=("http://a",), allow_credentials=True, expose_headers=("X-A", "X-B")))
    assert rules.allows({})
    assert rules.allows({b"origin": b"http://a"})
    assert not rules.allows({b"origin": b"http://a.evil"})
    assert rules.ordinary({b"origin": b"http://a"}) == (
        b"Access-Control-Allow-Origin: http://a\r\nAccess-Control-Allow-Credentials: true\r\n"
        b"Access-Control-Expose-Headers: X-A, X-B\r\nVary: Origin\r\n"
    )
    assert rules.ordinary({}) == b"Vary: Origin\r\n"


def test_spec_cannot_break_a_line() -> None:
    assert b"\r\nX: 1" not in CorsRules(Cors(expose_headers=("a\r\nX: 1",))).ordinary({b"origin": b"http://a"})
