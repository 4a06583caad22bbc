"""All functions of this device, each kept alive by a task of its own.

Flow: drop-ins and commands -> [supervisor] -> one supervised function each -> processors.
Promise: what happens to one function changes nothing for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loguru import logger

from agent.supervisor.backoff import Policy
from agent.supervisor.function import Launch, SupervisedFunction
from agent.supervisor.sockets import Sockets
from agent.supervisor.version import Version

FAULT_DELAY_S = 5.0


class Supervisor:
    """`tasks` is the group that waits for the functions' tasks. `unused` gets versions that never start again,
    `gone` the name of a removed function whose last process has ended."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        launch: Launch,
        sockets: Sockets,
        policy: Policy,
        unused: Callable[[Version], None],
        gone: Callable[[str], None],
    ) -> None:
        self.functions: dict[str, SupervisedFunction] = {}
        self.stopping = False
        self._tasks = tasks
        self._launch = launch
        self._sockets = sockets
        self._policy = policy
        self._unused = unused
        self._gone = gone
        self._empty = asyncio.Event()

    def apply(self, version: Version) -> None:
        """Run this version of its function from now on."""
        self._function(version.name).apply(version)

    def reject(self, name: str, message: str) -> None:
        """What was written for that function cannot be used."""
        self._function(name).reject(message)

    def accept(self, name: str) -> None:
        """What was written for that function is again what runs."""
        if name in self.functions:
            self.functions[name].accept()

    def remove(self, name: str) -> None:
        """Release, drain and forget it."""
        if name in self.functions:
            logger.info("function is removed", function=name)
            self.functions[name].stop()

    async def stop(self) -> None:
        """Drain all functions at once; returns when every process has ended. Bounded by their termination times."""
        self.stopping = True
        for function in self.functions.values():
            function.stop()
        while self.functions:
            self._empty.clear()
            await self._empty.wait()

    def kill(self) -> None:
        """End everything now."""
        for function in self.functions.values():
            function.kill()

    async def statistics(self) -> dict[str, Any]:
        """The content of `/statistics`: asked of the processors now, all at once."""
        names = sorted(self.functions)
        found = await asyncio.gather(*(self.functions[name].statistics() for name in names))
        return {"functions": dict(zip(names, found, strict=True))}

    def unready(self) -> dict[str, str]:
        """State of every function that should serve and does not."""
        return {
            name: function.state
            for name, function in sorted(self.functions.items())
            if function.state != "serving" and not function.disabled
        }

    def _function(self, name: str) -> SupervisedFunction:
        if name not in self.functions:
            self.functions[name] = SupervisedFunction(name, self._launch, self._sockets, self._policy, self._unused)
            self._tasks.create_task(self._keep(name), name=f"function:{name}")
        return self.functions[name]

    async def _keep(self, name: str) -> None:
        function = self.functions[name]
        while True:
            try:
                await function.run()
                break
            except Exception as error:  # a fault of ours that one function brings out must not end the others
                logger.opt(exception=error).error("supervising a function failed", function=name)
                if function.stopping:
                    break
                await asyncio.sleep(FAULT_DELAY_S)
        # Nothing may be awaited between the end of run() and the deletion: an apply() in between would be lost.
        del self.functions[name]
        if not self.stopping:
            self._gone(name)
        if not self.functions:
            self._empty.set()
