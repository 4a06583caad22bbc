"""Outcomes as bytes."""

import pytest

from agent.model.event import Outcome, Result
from agent.triggers.http.request import HEAD, PLAIN, Traits
from agent.triggers.http.response import Encoder, error_body, logs_header, response

NOON = 1_700_000_000.0


@pytest.fixture
def refused() -> list[str]:
    return []


@pytest.fixture
def encoder(refused: list[str]) -> Encoder:
    made = Encoder(refused.append)
    made.refresh(NOON)
    return made


def test_plain_reply_is_exactly_this(encoder: Encoder) -> None:
    expected = (
        b"HTTP/1.1 200 OK\r\nServer: headrace\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert encoder.plain(200, "text/plain", b"hello") == expected
    assert encoder.full(200, "text/plain", b"hello") == expected


def test_date_follows_the_clock(encoder: Encoder) -> None:
    encoder.plain(200, "a/b", b"")
    encoder.refresh(NOON + 1)
    assert b"22:13:21 GMT" in encoder.plain(200, "a/b", b"")


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_body_have_no_length(encoder: Encoder, status: int) -> None:
    made = encoder.plain(status, "text/plain", b"ignored")
    assert made.endswith(b"GMT\r\n\r\n")
    assert b"Content-" not in made


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 199, 600, 10**9])
def test_status_that_cannot_be_is_500(encoder: Encoder, refused: list[str], status: int) -> None:
    assert encoder.plain(status, "text/plain", b"x").startswith(b"HTTP/1.1 500 ")
    assert refused == ["statuses_refused"]


def test_head_keeps_the_length_only(encoder: Encoder) -> None:
    assert encoder.full(200, "", b"12345", HEAD).endswith(b"Content-Length: 5\r\n\r\n")


def test_connection_header(encoder: Encoder) -> None:
    assert b"\r\nConnection: close\r\n" in encoder.full(200, "", b"", Traits(close=True))
    assert b"\r\nConnection: close\r\n" in encoder.full(200, "", b"", Traits(http10=True), close=True)
    assert b"\r\nConnection: keep-alive\r\n" in encoder.full(200, "", b"", Traits(http10=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0b"),
        ("X", "a\x7f"),
        ("X: a\r\nY", "b"),
        ("X Y", "a"),
        ("X:", "a"),
        ("Xé", "a"),
        ("", "a"),
        ("X", "\ud800"),
    ],
)
def test_unsafe_headers_are_dropped_and_counted(encoder: Encoder, refused: list[str], name: str, value: str) -> None:
    assert encoder.header_lines([(name, value), ("Y", "1")]) == b"Y: 1\r\n"
    assert refused == ["headers_refused"]


def test_other_text_is_sent_as_utf_8(encoder: Encoder) -> None:
    assert encoder.header_lines([("X", "grün\t1")]) == "X: grün\t1\r\n".encode()


def test_content_type_given_as_a_header_counts_when_there_is_no_other(encoder: Encoder) -> None:
    headers = [("content-type", "a/b")]
    assert b"Content-Type: a/b\r\n" in encoder.full(200, "", b"", headers=headers)
    assert b"Content-Type: c/d\r\n" in encoder.full(200, "c/d", b"", headers=headers)
    assert b"Content-Type: text/plain; charset=utf-8\r\n" in encoder.full(200, "", b"")


def test_what_is_kept_ready_is_bounded(encoder: Encoder) -> None:
    for n in range(2000):
        encoder.plain(200, f"a/{n}", b"")
        encoder.header_lines([("X", str(n))])
    assert len(encoder._beginnings) <= 256
    assert len(encoder._lines) <= 256


def test_logs_are_left_out_when_long() -> None:
    assert logs_header(None) == b""
    assert logs_header([]) == b"X-Nuclio-Logs: []\r\n"
    assert logs_header([{"message": "a\r\nb"}]) == b'X-Nuclio-Logs: [{"message":"a\\r\\nb"}]\r\n'
    room = 4095 - len('[{"m":""}]')
    assert logs_header([{"m": "x" * room}])
    assert not logs_header([{"m": "x" * (room + 1)}])


def test_cors_lines_replace_those_of_the_handler(encoder: Encoder) -> None:
    traits = Traits(extra=b"Access-Control-Allow-Origin: http://a\r\n")
    made = encoder.full(200, "", b"", traits, headers=[("access-control-allow-origin", "*"), ("X", "1")])
    assert made.count(b"llow-") == 1
    assert b"X: 1\r\n" in made


def test_large_body_is_not_copied(encoder: Encoder) -> None:
    body = b"x" * 100
    outcome = Outcome(Result.REPLIED, 200, "a/b", [], body)
    head, rest = response(encoder, outcome, PLAIN, close=False, apart=100)
    assert rest is body
    assert head.endswith(b"Content-Length: 100\r\n\r\n")
    assert len(response(encoder, outcome, HEAD, close=False, apart=100)) == 1
    outcome.status = 204
    assert len(response(encoder, outcome, PLAIN, close=False, apart=100)) == 1


@pytest.mark.parametrize("result", [result for result in Result if result is not Result.REPLIED])
def test_every_result_has_an_answer(encoder: Encoder, result: Result) -> None:
    (made,) = response(encoder, Outcome(result), PLAIN, close=False, apart=100)
    assert made.split(b" ")[1] in (b"408", b"413", b"502", b"503")
    assert (b"Retry-After: 1" in made) == (b" 503 " in made)


def test_error_body_is_json() -> None:
    assert error_body('a "b"') == b'{"error": "a \\"b\\""}'
