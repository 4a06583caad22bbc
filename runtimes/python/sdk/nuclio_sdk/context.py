"""What a handler gets beside the event: `handler(context, event)`."""

from __future__ import annotations

import sys

from .event import TriggerInfo
from .logger import Logger
from .platform import Platform
from .response import Response

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any

UserData: type = type(sys.implementation)  # types.SimpleNamespace, without importing `types`


class Context:
    """One a worker, the same object for every event.

    `logger`; `platform` (calls to other functions, callbacks); `user_data`, a bare namespace for what the function
    keeps between events; `worker_id`, a string; `trigger` (`kind`, `name`); `Response`, the class.
    """

    Response = Response

    def __init__(
        self,
        logger: Logger | None = None,
        platform: Platform | None = None,
        worker_id: str | None = None,
        trigger: TriggerInfo | None = None,
    ) -> None:
        self.logger = logger if logger is not None else Logger("debug")
        self.platform = platform if platform is not None else Platform("local")
        self.user_data: Any = UserData()
        self.worker_id = worker_id
        self.trigger = trigger
        if trigger is not None:
            self.trigger_name = trigger.name  # the old name
