"""What an operator can say about an http trigger, and the address that follows from it.

Flow: function.yaml -> [this] -> trigger.py. Promise: past here every value is right; no file or socket is opened.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from msgspec import Meta, field

from agent.model.errors import SpecError
from agent.model.spec import Duration, Port, Spec, TriggerSpec

Count = Annotated[int, Meta(ge=1)]


class Cors(Spec, frozen=True, kw_only=True):
    """Which web pages of other origins may call the function; nuclio's keys and defaults."""

    enabled: bool = False
    allow_origins: tuple[str, ...] = ("*",)
    allow_methods: tuple[str, ...] = ("HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
    allow_headers: tuple[str, ...] = ("Accept", "Content-Length", "Content-Type", "Authorization", "X-Nuclio-Log-Level")
    allow_credentials: bool = False
    expose_headers: tuple[str, ...] = ()
    preflight_request_method: str = "OPTIONS"
    preflight_max_age_seconds: int = 5


class Tls(Spec, frozen=True, kw_only=True):
    """PEM files. With `client_ca`, only clients that show a certificate of that authority are let in."""

    cert: Annotated[str, Meta(min_length=1)]
    key: Annotated[str, Meta(min_length=1)]
    client_ca: str = ""
    minimum_version: Literal["1.2", "1.3"] = "1.2"


class HttpSpec(TriggerSpec, frozen=True, kw_only=True):
    """Keys of an http trigger; see README.md beside this file."""

    default_id_from: ClassVar[str] = "header:Idempotency-Key"

    port: Port = 0
    host: str = "127.0.0.1"
    socket: str = ""  # path of a unix socket; alone, no TCP port is opened
    socket_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}$")] = "0660"
    tls: Tls | None = None
    read_buffer_size: Annotated[int, Meta(ge=1024, le=1 << 20)] = 16384  # bytes of request line and headers
    max_request_body_size: Annotated[int, Meta(ge=0, le=1 << 30)] = 4 << 20  # bytes
    idle_timeout: Duration = Duration(75.0)  # a kept-alive connection without a request; 0: for ever
    request_timeout: Duration = Duration(30.0)  # for a head, and for progress of a body; 0: for ever
    max_connections: Count = 1024
    backlog: Count = 1024
    cors: Cors = Cors()
    reduce_memory_usage: bool = False  # accepted, nothing to do: no buffer is kept per connection
    ingresses: dict[str, Any] = field(default_factory=dict)  # accepted
    service_type: str = ""  # accepted
    disable_port_publishing: bool = False  # accepted

    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on, or None when only a unix socket was asked for. Raises SpecError."""
        if self.port or not self.url:
            return None if self.socket and not self.port else (self.host, self.port)
        return self._address_in_url()

    def _address_in_url(self) -> tuple[str, int]:
        text = self.url if "//" in self.url else f"//{self.url}"
        try:
            parts = urlsplit(text)
            return parts.hostname or self.host, parts.port or 0
        except ValueError as error:
            raise SpecError(
                f"url {self.url!r} is not an address to listen on",
                where=f"trigger {self.name}",
                fix='write it as ":8080", "0.0.0.0:8080" or "[::1]:8080", or give `host` and `port`',
            ) from error
