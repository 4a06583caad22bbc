"""What a head says about itself."""

import pytest

from agent.triggers.http import request
from agent.triggers.http.request import Refusal


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/a?b", b"/a?b"),
        (b"http://h/a?b", b"/a?b"),
        (b"HTTPS://h:1/", b"/"),
        (b"http://h", b"/"),
        (b"http://h?b", b"/?b"),
    ],
)
def test_target_as_path(url: bytes, path: bytes) -> None:
    assert request.origin_form(url, b"GET") == path


@pytest.mark.parametrize(
    ("url", "method", "status"),
    [(b"*", b"GET", 400), (b"/a#b", b"GET", 400), (b"ftp://h/", b"GET", 400), (b"h:1", b"CONNECT", 405)],
)
def test_targets_that_are_refused(url: bytes, method: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        request.origin_form(url, method)
    assert caught.value.status == status


def test_star_for_options() -> None:
    assert request.origin_form(b"*", b"OPTIONS") == b"*"


def test_decoded_path_is_text_or_else_bytes() -> None:
    assert request.decoded(b"/a%20b%C3%A9%2F") == "/a bé/"
    assert request.decoded(b"/%ff") == b"/\xff"


def test_log_level() -> None:
    assert request.log_level({b"x-nuclio-log-level": b" WARN"}) == "warn"
    assert request.log_level({b"x-nuclio-log-level": b"all"}) == ""
    assert request.log_level({}) == ""


def test_coding() -> None:
    assert request.check_coding({}, "1.1") is False
    assert request.check_coding({b"transfer-encoding": b"Chunked"}, "1.1") is True
    for value, version, status in ((b"gzip, chunked", "1.1", 501), (b"chunked", "1.0", 400)):
        with pytest.raises(Refusal) as caught:
            request.check_coding({b"transfer-encoding": value}, version)
        assert caught.value.status == status


def test_length_is_bounded() -> None:
    assert request.content_length(b"10", 10) == 10
    with pytest.raises(Refusal, match="longer than 10 bytes"):
        request.content_length(b"11", 10)


def test_expectations() -> None:
    assert request.wants_continue({b"expect": b"100-Continue"}, "1.1")
    assert not request.wants_continue({b"expect": b"anything"}, "1.0")
    with pytest.raises(Refusal):
        request.wants_continue({b"expect": b"anything"}, "1.1")
