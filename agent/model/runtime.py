"""How a worker of some language is started: the words that runtimes and the processor share.

Flow: the processor asks `runtime_for(spec.runtime)` and calls its `launch`; each worker is started with the result.
Found by folder name, `runtimes.<language>.runtime`: there is no list to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from agent.model.errors import SpecError
from agent.model.language import language_of
from agent.model.spec import Function


@dataclass(frozen=True, slots=True)
class Launch:
    """A worker's command line, and its whole environment but for the HEADRACE_* variables that tell it its channel."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    forkable: bool = False  # the nursery's forks are what `argv` would start


class Runtime(Protocol):
    """What the module `runtimes/<language>/runtime.py` has."""

    def launch(self, function: Function, code_dir: Path) -> Launch:
        """How to start a worker of `function`, whose code lies in `code_dir`. May run programs: call it before serving.

        Raises SpecError when the operator can mend what is missing.
        """


def runtime_for(name: str) -> Runtime:
    """The runtime of `python:3.11`, `python`, `nodejs`... Raises SpecError when there is none for that language."""
    module_name = f"runtimes.{language_of(name)}.runtime"
    try:
        return cast(Runtime, importlib.import_module(module_name))
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise SpecError(f"no runtime for {name!r}", fix=f"known runtimes: {', '.join(languages())}") from error
        raise


def languages() -> list[str]:
    """Every language there is a runtime for, without importing any."""
    package = importlib.import_module("runtimes")
    return sorted(item.name for item in pkgutil.iter_modules(package.__path__) if item.ispkg)
