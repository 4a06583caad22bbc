"""File trigger: a file that is written or moved into a folder is an event; or every line of a growing file is one.

Why: much of what a small device gets comes as files (uploads, cameras, exports of old programs, logs), and finding out
when one is complete, new, and handled is the whole difficulty.
Flow: kernel events and walks -> Tree -> Intake (files) or Lines (lines) -> sink.
Promise: at least once, each file (or line) once as long as nothing crashes; remembered across restarts. A function that
is too slow lets the files wait where they are. README.md says what that means in each case.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from agent.model.errors import SourceUnavailable, SpecError
from agent.model.registry import trigger
from agent.model.sink import Sink
from agent.triggers.file.intake import Intake
from agent.triggers.file.lines import Lines
from agent.triggers.file.selection import Chooser, Selection, selection_of
from agent.triggers.file.spec import FileSpec
from agent.triggers.file.tree import Tree


@trigger(FileSpec)
async def run(spec: FileSpec, sink: Sink) -> None:
    """Watch until cancelled. Then nothing new is taken, and what is in hand is handled and remembered."""
    selection = selection_of(spec)
    if selection.root in selection.excluded:
        raise SpecError("files would be moved to the folder that is watched", where=sink.name, fix="another `moveTo`")
    async with AsyncExitStack() as stack:
        watcher, chooser = _watcher(spec, selection, sink)
        stack.push_async_callback(watcher.close)
        stack.push_async_callback(sink.drained)
        tree = Tree(spec, chooser, sink, watcher)
        stack.push_async_callback(tree.close)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tree.run(), name=f"{sink.name}:tree")
            tasks.create_task(watcher.pump(), name=f"{sink.name}:pump")


def _watcher(spec: FileSpec, selection: Selection, sink: Sink) -> tuple[Intake | Lines, Chooser]:
    try:
        if spec.read == "files":
            return Intake(spec, selection, sink), selection
        lines = Lines(spec, selection, sink)
        return lines, lines.names
    except OSError as error:
        raise SourceUnavailable(
            f"cannot keep what was handled: {error.strerror}",
            where=os.fspath(sink.state_dir),
            fix="make the folder writable, or free space on its disk",
        ) from error
