"""The one tree of errors, sorted by who can act on them.

Every error says what is wrong, where, and how to mend it. `code` travels on the wire and decides the
exit code; `retry` says whether the same call may succeed later with nothing changed.
"""

from __future__ import annotations

EXIT_CONFIGURATION = 2
"""Exit code for what a restart will not heal; systemd units list it in RestartPreventExitStatus."""


class AgentError(Exception):
    """What is wrong, where, and how to mend it."""

    code = "agent"
    retry = False
    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text


class SpecError(AgentError):
    """A configuration the operator wrote cannot be used. `where` is `file:line:column: key` where known."""

    code = "spec"
    exit_code = EXIT_CONFIGURATION


class CommandError(AgentError):
    """The caller asked for something that cannot be done."""

    code = "command"


class SourceUnavailable(AgentError):
    """A broker, device or directory is away. The trigger is started again, waiting longer each time."""

    code = "source.unavailable"
    retry = True


class FunctionError(AgentError):
    """The author of the handler has to act: the function cannot be imported, or its `init_context` raised."""

    code = "function"
