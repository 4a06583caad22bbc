"""Exceptions a handler may raise to choose the reply."""

from __future__ import annotations

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any


class ExceptionWithResponse(IOError):
    """Raised in a handler, it becomes the reply: this status, body and content type, not a 500 with a traceback."""

    def __init__(self, status_code: int, body: Any = None, content_type: str | None = None) -> None:
        super().__init__(status_code, body)
        self._status_code = status_code
        self._body = body
        self._content_type = content_type

    @property
    def status_code(self) -> int:
        return self._status_code

    @property
    def body(self) -> Any:
        return self._body

    @property
    def content_type(self) -> str | None:
        return self._content_type
