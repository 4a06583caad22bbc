"""Cross-origin rules (CORS): which web pages of other origins may call the function.

Flow: connection -> [this] -> reply at once, or header lines for the function's reply. nuclio's rules and statuses, but
one: an ordinary request from an origin that is not allowed gets 403 (nuclio: 200 with an empty body).
"""

from __future__ import annotations

from agent.triggers.http.request import Known
from agent.triggers.http.spec import Cors

VARY_PREFLIGHT = b"Vary: Origin\r\nVary: Access-Control-Request-Method\r\nVary: Access-Control-Request-Headers\r\n"
_LINE_BREAKS = str.maketrans("", "", "\r\n\0")


class CorsRules:
    """The rules of one trigger, with everything that does not depend on the request made ready."""

    VARY = b"Vary: Origin\r\n"

    def __init__(self, spec: Cors) -> None:
        self._any_origin = "*" in spec.allow_origins
        self._origins = frozenset(origin.encode() for origin in spec.allow_origins)
        self._methods = frozenset(method.upper().encode() for method in spec.allow_methods)
        self._headers = frozenset(name.lower().encode() for name in spec.allow_headers)
        self._preflight_method = spec.preflight_request_method.upper().encode()
        credentials = [("Access-Control-Allow-Credentials", "true")] if spec.allow_credentials else []
        exposed = [("Access-Control-Expose-Headers", ", ".join(spec.expose_headers))] if spec.expose_headers else []
        self._ordinary = _lines([*credentials, *exposed]) + self.VARY
        self._preflight = _lines(
            [
                ("Access-Control-Max-Age", str(spec.preflight_max_age_seconds)),
                ("Access-Control-Allow-Methods", ", ".join(spec.allow_methods)),
                ("Access-Control-Allow-Headers", ", ".join(spec.allow_headers)),
                *credentials,
            ]
        )

    def is_preflight(self, method: bytes, known: Known) -> bool:
        """A browser asks whether it may send the real request."""
        return method == self._preflight_method and bool(known.get(b"access-control-request-method"))

    def preflight(self, known: Known) -> tuple[int, bytes]:
        """Status and header lines of the answer to a browser's question: 200 with leave, or 400."""
        origin = known.get(b"origin", b"")
        wanted = known.get(b"access-control-request-headers", b"")
        names = [name.strip().lower() for name in wanted.split(b",") if name.strip()]
        granted = (
            self._allows(origin)
            and known[b"access-control-request-method"] in self._methods
            and all(name in self._headers for name in names)
        )
        if not granted:
            return 400, VARY_PREFLIGHT
        return 200, b"Access-Control-Allow-Origin: %b\r\n%b%b" % (origin, self._preflight, VARY_PREFLIGHT)

    def allows(self, known: Known) -> bool:
        """No page asks, or one that may."""
        origin = known.get(b"origin", b"")
        return not origin or self._allows(origin)

    def ordinary(self, known: Known) -> bytes:
        """Header lines for the function's reply."""
        origin = known.get(b"origin")
        if not origin:
            return self.VARY
        return b"Access-Control-Allow-Origin: %b\r\n%b" % (origin, self._ordinary)

    def _allows(self, origin: bytes) -> bool:
        return bool(origin) and (self._any_origin or origin in self._origins)


def _lines(pairs: list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value.translate(_LINE_BREAKS)}\r\n" for name, value in pairs).encode()
