"""What a handler gets beside the event: `handler(context, event)`."""

from __future__ import annotations

import sys

from .event import TriggerInfo
from .logger import Logger
from .platform import Platform
from .publisher import no_publisher
from .response import Response

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .publisher import Publish

UserData: type = type(sys.implementation)  # types.SimpleNamespace, without importing `types`


class Context:
    """One a worker, the same object for every event.

    `logger`; `platform` (calls to other functions, callbacks); `user_data`, a bare namespace for what the function
    keeps between events; `worker_id`, a string; `trigger` (`kind`, `name`); `Response`, the class; `publish`.
    """

    Response = Response

    def __init__(
        self,
        logger: Logger | None = None,
        platform: Platform | None = None,
        worker_id: str | None = None,
        trigger: TriggerInfo | None = None,
        publisher: Publish = no_publisher,
    ) -> None:
        self.logger = logger if logger is not None else Logger("debug")
        self.platform = platform if platform is not None else Platform("local")
        self.user_data: Any = UserData()
        self.worker_id = worker_id
        self.trigger = trigger
        self._publisher = publisher
        if trigger is not None:
            self.trigger_name = trigger.name  # the old name

    def publish(
        self,
        target: str,
        body: Any,
        *,
        topic: str | None = None,
        qos: int = 1,
        retain: bool = False,
        headers: Mapping[str, Any] | None = None,
        key: str | None = None,
        now: bool = False,
    ) -> None:
        """Send a message to a binding, or (a bare topic) to the broker of the function's first mqtt trigger.

        It is stored when the event has been handled, before its source hears so, and sent in the order of its key (the
        topic unless given) as soon as the broker is there. When the handler fails, what it has published is forgotten,
        but for what it published `now`. `body`: bytes or text as they are, anything else as JSON. Raises ValueError or
        TypeError for what cannot be sent.
        """
        self._publisher(target, body, topic, qos, retain, headers, key, now)
