"""What one processor is told: its function, its folders, what it inherits. Read once, at start."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.spec import Function


@dataclass(frozen=True, slots=True)
class ProcessorConfig:
    """`link_fd` -1: no agent, so triggers start at once. `log_file` None: the function's log goes to stdout.
    `nursery_fd` -1: every worker is started as a fresh program.
    """

    function: Function
    code_dir: Path
    state_dir: Path
    log_file: Path | None = None
    calls_dir: str = ""
    link_fd: int = -1
    nursery_fd: int = -1
    listeners: Mapping[str, list[socket.socket]] = field(default_factory=dict)


def inherited_listeners(text: str) -> dict[str, list[socket.socket]]:
    """`<trigger>:<fd>,...` (HEADRACE_LISTEN) as sockets by trigger."""
    found: dict[str, list[socket.socket]] = {}
    for item in filter(None, text.split(",")):
        name, _, descriptor = item.rpartition(":")
        found.setdefault(name, []).append(socket.socket(fileno=int(descriptor)))
    return found


def take_environment(names: tuple[str, ...]) -> dict[str, str]:
    """The values of these variables, removed from the environment: they are for the processor, not for its workers."""
    return {name: os.environ.pop(name, "") for name in names}
