"""The table of what a handler returns and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nuclio_sdk import ExceptionWithResponse, Response
from nuclio_sdk._worker.replies import error_text, reply_to, reply_to_error

GO = "json: cannot unmarshal {} into Go struct field Result.{} of type {}"


class Logged:
    def __log__(self) -> Any:
        return {"logged": 1}


class Shown:
    def __repr__(self) -> str:
        return "<shown>"


class Pair(tuple):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ("text ä", 200, "text/plain", "text ä"),
        ("", 200, "text/plain", ""),
        (b"\xff", 200, "text/plain", b"\xff"),
        (bytearray(b"x"), 200, "text/plain", b"x"),
        (memoryview(b"x"), 200, "text/plain", b"x"),
        ({"a": "ä", "b": [1, 2]}, 200, "application/json", '{"a": "\\u00e4", "b": [1, 2]}'),
        ({"v": float("nan"), "w": [float("inf"), -float("inf")]}, 200, "application/json", None),
        ({"v": Logged(), "w": Shown()}, 200, "application/json", '{"v": {"logged": 1}, "w": "<shown>"}'),
        ([1, "a"], 200, "application/json", '[1, "a"]'),
        ((201, "made"), 201, "text/plain", "made"),
        (Pair((202, "made")), 202, "text/plain", "made"),
        ((0, "zero"), 200, "text/plain", "zero"),
        ((404, {"error": "x"}), 404, "application/json", '{"error": "x"}'),
        ((200, b"x"), 200, "application/json", "\"b'x'\""),
        ((200, None), 200, "application/json", "null"),
        ((200, [1]), 200, "application/json", "[1]"),
        (None, 200, "text/plain", "None"),
        (5, 200, "text/plain", "5"),
        (1.5, 200, "text/plain", "1.5"),
        (True, 200, "text/plain", "True"),
        ((1, 2, 3), 200, "text/plain", "(1, 2, 3)"),
        (Response(body={"a": 1}, content_type="x/y", status_code=201), 201, "application/json", '{"a": 1}'),
        (Response(body="x", content_type="x/y"), 200, "x/y", "x"),
        (Response(body=b"\x00", status_code=500), 500, "text/plain", b"\x00"),
        (Response(body=[1, 2]), 200, "text/plain", "[1, 2]"),
        (Response(), 200, "text/plain", "None"),
        (Response(body="x", content_type=5), 500, "text/plain", GO.format("number", "content_type", "string")),  # type: ignore[arg-type]
        (Response(body="x", content_type={"a": 1}), 500, "text/plain", GO.format("object", "content_type", "string")),  # type: ignore[arg-type]
        (Response(body="x", status_code="200"), 500, "text/plain", GO.format("string", "status_code", "int")),  # type: ignore[arg-type]
        (("a", "b"), 500, "text/plain", GO.format("string", "status_code", "int")),
        ((True, "b"), 500, "text/plain", GO.format("bool", "status_code", "int")),
    ],
)
def test_table(result: Any, status: int, content_type: str, body: Any) -> None:
    replied = reply_to(result)
    assert (replied[0], replied[1]) == (status, content_type)
    if body is None:
        assert json.loads(str(replied[3])) == {"v": "NaN", "w": ["Infinity", "-Infinity"]}
    else:
        assert replied[3] == body


@pytest.mark.parametrize("status", [99, 1000, -1])
def test_impossible_status(status: int) -> None:
    with pytest.raises(ValueError, match="from 100 to 999"):
        reply_to((status, ""))


def test_unserialisable_dict_in_a_response() -> None:
    with pytest.raises(TypeError):
        reply_to(Response(body={"a": object()}))


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({}, None),
        (None, None),
        ({"a": "1"}, {"a": "1"}),
        ({"n": 5, "b": True, "f": 1.5, "none": None}, [("n", "5"), ("b", "True"), ("f", "1.5")]),
        ({"Set-Cookie": ["a", "b"]}, [("Set-Cookie", "a"), ("Set-Cookie", "b")]),
        ({b"X-A": b"\xff"}, [("X-A", "\xff")]),
    ],
)
def test_headers(headers: Any, sent: Any) -> None:
    response = Response(body="x")
    response.headers = headers
    assert reply_to(response)[2] == sent


def test_no_ack() -> None:
    response = Response()
    response.ensure_no_ack()
    assert reply_to(response)[2] == [("x-nuclio-stream-no-ack", "True")]


def raised_by(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_error() -> None:
    def handler() -> None:
        raise KeyError("gone")

    status, content_type, _, body = reply_to_error(raised_by(handler))
    assert (status, content_type) == (500, "text/plain")
    assert str(body).startswith("Exception caught in handler - \"'gone'\": Traceback (most recent call last):\n")
    assert "in handler" in str(body)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_even_what_ends_programs_is_a_reply(error: BaseException) -> None:
    assert reply_to_error(error)[0] == 500


def test_error_that_cannot_be_printed() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "Broken" in error_text(Broken())


def test_exception_with_response() -> None:
    assert reply_to_error(ExceptionWithResponse(404, "gone", "text/x")) == (404, "text/x", None, "gone")
    assert reply_to_error(ExceptionWithResponse(404, {"a": 1}))[:2] == (404, "application/json")
    assert reply_to_error(ExceptionWithResponse(5, "x"))[0] == 500


def test_response_repr() -> None:
    assert "status_code=200" in repr(Response({"a": "b"}, "x"))
