"""The Python API of functions, under the name that functions written for nuclio import.

Why: such functions say `import nuclio_sdk` and annotate with its classes; they run here unmodified.
Flow: the worker program imports this package before any code of the user, so it wins over an installed one.
Promise: importing it is cheap: what few functions use (logging formatters, deserializers) is imported at first use.

This file is not empty, as the project's others are: these names are the package's interface.
"""

from __future__ import annotations

from .context import Context
from .event import Event, TriggerInfo
from .exceptions import ExceptionWithResponse
from .logger import Logger
from .platform import Platform
from .qualified_offset import QualifiedOffset
from .response import Response

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Context",
    "Event",
    "EventDeserializerKinds",
    "ExceptionWithResponse",
    "Logger",
    "Platform",
    "QualifiedOffset",
    "Response",
    "TriggerInfo",
]


def __getattr__(name: str) -> Any:
    if name == "EventDeserializerKinds":
        from .event_deserializers import EventDeserializerKinds

        return EventDeserializerKinds
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
