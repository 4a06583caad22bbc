"""The platform as a function sees it: calls to other functions on the device, callbacks around its own life.

Flow: `call_function` -> HTTP/1.1 over the unix socket `<calls_dir>/<function>.sock`, which the called function's own
HTTP listener serves; so a call is an ordinary event there, with all of its limits and statistics.
Promise: nuclio's semantics, among them that the headers of the given event are changed in place.

A call blocks. In an async handler: `await asyncio.to_thread(context.platform.call_function, name, event)`.
"""

from __future__ import annotations

import os

from .qualified_offset import QualifiedOffset
from .response import Response

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    Callback = Callable[[], Any]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade", "trailer"}


class Platform:
    """`kind` is "local"; `namespace` as in the function's metadata."""

    def __init__(
        self,
        kind: str,
        namespace: str = "default",
        connection_provider: Callable[..., Any] | None = None,
        on_control_callback: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
        calls_dir: str = "",
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.termination_callback: Callback | None = None
        self.drain_callback: Callback | None = None
        self._connection_provider = connection_provider
        self._on_control_callback = on_control_callback
        self._calls_dir = calls_dir

    def set_termination_callback(self, callback: Callback) -> None:
        """Call this (a plain or coroutine function without arguments) before the worker ends. The last one set wins."""
        self.termination_callback = callback

    def set_drain_callback(self, callback: Callback) -> None:
        """Call this when the stream's partitions are about to move to another worker. The last one set wins."""
        self.drain_callback = callback

    async def explicit_ack(self, qualified_offset: QualifiedOffset) -> None:
        """Acknowledge a message that was answered with `Response.ensure_no_ack()` before."""
        if self._on_control_callback is None:
            raise RuntimeError("explicit_ack: this function's trigger has no explicit acknowledgement")
        await self._on_control_callback(qualified_offset.compile_explicit_ack_message())

    def call_function(
        self,
        function_name: str,
        event: Any,
        node: Any = None,
        timeout: float | None = None,
        service_name_override: str | None = None,
    ) -> Response:
        """Send `event` to another function and wait for its reply; `timeout` in seconds.

        The reply's header names are lower case; its body is bytes, or the decoded value when its content type is
        exactly application/json. Raises ConnectionError when there is no such function here, OSError when it hangs up.
        """
        body, content_type = _request_body(event)
        headers = _prepare_headers(event, function_name, content_type)
        connection = self._connect(function_name, timeout, service_name_override)
        try:
            connection.request(event.method or ("POST" if body else "GET"), event.path or "/", body, headers)
            reply = connection.getresponse()
            return _response(reply, reply.read())
        finally:
            connection.close()

    def _connect(self, function_name: str, timeout: float | None, service_name_override: str | None) -> Any:
        if self._connection_provider is not None:
            host = service_name_override or f"nuclio-{self.namespace}-{function_name}"
            return self._connection_provider(f"{host}:8080", timeout=timeout)
        if service_name_override:
            from http.client import HTTPConnection

            return HTTPConnection(f"{service_name_override}:8080", timeout=timeout)
        from .unix_http import connect

        path = os.path.join(self._calls_dir, f"{function_name}.sock")
        try:
            return connect(path, timeout)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise ConnectionError(self._nobody_there(function_name, path)) from error

    def _nobody_there(self, function_name: str, path: str) -> str:
        try:
            there = sorted(name[: -len(".sock")] for name in os.listdir(self._calls_dir) if name.endswith(".sock"))
        except OSError:
            there = []
        return (
            f"call_function: no function {function_name!r} answers here (looked at {path}); functions with an http "
            f"trigger here: {', '.join(there) or 'none'}"
        )


def _request_body(event: Any) -> tuple[Any, str]:
    if isinstance(event.body, dict):
        import json

        return json.dumps(event.body), "application/json"
    body = event.body
    if body is not None and not isinstance(body, str | bytes | bytearray | memoryview):
        body = str(body)
    return (body.encode() if isinstance(body, str) else body), event.content_type or "text/plain"


def _prepare_headers(event: Any, function_name: str, content_type: str) -> dict[str, Any]:
    """Changes the event's headers as nuclio does; returns those to send, which leave out what frames a message."""
    event.headers = headers = event.headers or {}
    headers["Content-Type"] = content_type
    headers.setdefault("X-Nuclio-Target", function_name)
    headers.pop("Content-Length", None)
    texts = {name.decode("latin-1") if isinstance(name, bytes) else name: value for name, value in headers.items()}
    return {name: value for name, value in texts.items() if name.lower() not in _HOP_BY_HOP | {"content-length"}}


def _response(reply: Any, body: Any) -> Response:
    headers = {name.lower(): value for name, value in reply.getheaders()}
    content_type = headers.get("content-type", "text/plain")
    if content_type == "application/json":
        import json

        body = json.loads(body)
    return Response(headers=headers, body=body, content_type=content_type, status_code=reply.status)
