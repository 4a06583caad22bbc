"""An event written in a spec (`event: {body, headers, path, method}`), as the timer triggers have it.

Flow: function.yaml -> ConfiguredEvent -> a fresh Event for every run. Promise: the function sees exactly the headers
that were configured, and the timestamp 1970-01-01, which is what nuclio's timers send.
"""

from __future__ import annotations

from msgspec import field

from agent.model.event import Event
from agent.model.spec import Spec


class ConfiguredEvent(Spec, frozen=True, kw_only=True):
    """Everything a timer's event carries. Header values other than text are sent as their text."""

    body: str = ""
    headers: dict[str, str | int | float | bool] = field(default_factory=dict)
    path: str = ""
    method: str = ""

    def make(self) -> Event:
        """A new Event: the dispatcher owns what it is given, so two runs never share one."""
        return Event(
            body=self.body.encode(),
            headers=[(name, str(value)) for name, value in self.headers.items()],
            path=self.path,
            method=self.method,
            timestamp_ns=0,
        )
