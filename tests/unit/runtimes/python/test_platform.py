"""call_function without a network: what is asked of the connection, what becomes of its answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nuclio_sdk import Event, Platform


class Connection:
    """Stands in for http.client's; remembers the request."""

    reply: Any = SimpleNamespace(status=200, read=lambda: b"ok", getheaders=lambda: [("Content-Type", "text/x")])

    def __init__(self, host: str, timeout: float | None) -> None:
        self.host, self.timeout = host, timeout
        self.closed = False

    def request(self, *arguments: Any) -> None:
        self.method, self.path, self.body, self.headers = arguments

    def getresponse(self) -> Any:
        return self.reply

    def close(self) -> None:
        self.closed = True


def call(event: Event, name: str = "other", reply: Any = None, **options: Any) -> tuple[Connection, Any]:
    made: list[Connection] = []

    def connect(host: str, timeout: float | None) -> Connection:
        made.append(Connection(host, timeout))
        if reply is not None:
            made[0].reply = reply
        return made[0]

    platform = Platform("local", namespace="ns", connection_provider=connect)
    response = platform.call_function(name, event, **options)
    assert made[0].closed
    return made[0], response


def test_the_request() -> None:
    event = Event(body="text", method="PUT", path="/p", headers={"Content-Length": "9", "A": "b"})
    sent, response = call(event, timeout=3)
    assert (sent.method, sent.path, sent.body, sent.timeout) == ("PUT", "/p", b"text", 3)
    assert sent.host == "nuclio-ns-other:8080"
    wanted = {"A": "b", "Content-Type": "text/plain", "X-Nuclio-Target": "other"}
    assert sent.headers == wanted and event.headers == wanted
    assert response.body == b"ok" and response.headers == {"content-type": "text/x"}
    assert response.content_type == "text/x" and response.status_code == 200


@pytest.mark.parametrize(
    ("event", "method", "body", "content_type"),
    [
        (Event(body={"a": 1}, content_type="x/y", method="POST"), "POST", '{"a": 1}', "application/json"),
        (Event(body=b"x", content_type="x/y"), "POST", b"x", "x/y"),
        (Event(), "GET", None, "text/plain"),
        (Event(body=5), "POST", b"5", "text/plain"),
    ],
)
def test_bodies(event: Event, method: str, body: Any, content_type: str) -> None:
    sent, _ = call(event)
    assert (sent.method, sent.body, sent.headers["Content-Type"]) == (method, body, content_type)


def test_headers_that_frame_a_message_are_not_passed_on() -> None:
    event = Event(
        headers={"Transfer-Encoding": "chunked", "connection": "close", "X-Nuclio-Target": "given", b"B": "c"}
    )
    sent, _ = call(event)
    assert sent.headers == {"X-Nuclio-Target": "given", "Content-Type": "text/plain", "B": "c"}


def test_json_is_decoded_only_for_the_exact_type() -> None:
    def reply(content_type: str) -> Any:
        return SimpleNamespace(status=201, read=lambda: b"[1]", getheaders=lambda: [("CONTENT-TYPE", content_type)])

    assert call(Event(), reply=reply("application/json"))[1].body == [1]
    assert call(Event(), reply=reply("application/json; charset=utf-8"))[1].body == b"[1]"


def test_an_unknown_function(tmp_path: Path) -> None:
    (tmp_path / "lamp.sock").touch()
    platform = Platform("local", calls_dir=str(tmp_path))
    with pytest.raises(
        ConnectionError, match=r"no function 'lmap' answers here \(looked at .*lmap.sock\).*here: lamp$"
    ):
        platform.call_function("lmap", Event())
    with pytest.raises(ConnectionError, match="here: none"):
        Platform("local", calls_dir=str(tmp_path / "none")).call_function("lamp", Event())
