"""What a handler returns when status, headers or content type matter."""

from __future__ import annotations

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any


class Response:
    """A reply. `body`: str, bytes, a dict (sent as JSON), anything else as its text.

    `event_id` says which event of a batch this answers. Note the order of positional arguments: headers come first.
    """

    def __init__(
        self,
        headers: dict[str, Any] | None = None,
        body: Any = None,
        content_type: str | None = None,
        status_code: int = 200,
        event_id: str | None = None,
    ) -> None:
        self.headers: dict[str, Any] = headers or {}
        self.body = body
        self.status_code = status_code
        self.content_type = content_type or "text/plain"
        self.event_id = event_id

    def ensure_no_ack(self) -> None:
        """The stream must not count this event as handled yet: the function acknowledges it itself, later."""
        self.headers["x-nuclio-stream-no-ack"] = True

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"
