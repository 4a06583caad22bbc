"""The folders that processors are started with: one for every version of a function that may still run.

Flow: loaded function -> [generations] -> `<run-dir>/functions/<name>/<number>/` -> `headrace processor DIR`.
Promise: a folder appears under its name when it is complete, and belongs to one version for ever; what triggers
remember (`state/`) lies in the state directory, the function's log beside the folders: both are shared by all versions.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.model.errors import AgentError
from agent.model.load import Loaded, dump_processor_yaml, embedded_source
from agent.store import atomic

LEFT_OUT = ("__pycache__", ".git")
LINKED = (".venv", "venv", "node_modules")
"""Installed packages, large and not edited by hand: linked where they are instead of copied."""


class CannotPrepare(AgentError):
    """No room or no right to write below the run or state directory."""

    code = "store.write"
    retry = True


class Generations:
    """`volatile` loses its content at boot, `lasting` does not. Numbers count up while the agent lives."""

    def __init__(self, volatile: Path, lasting: Path, logs: Path) -> None:
        self._volatile = volatile
        self._logs = logs
        self._lasting = lasting
        self._numbers: dict[str, int] = {}

    def sweep(self) -> None:
        """Remove what an earlier agent prepared; the logs and what triggers remember stay."""
        shutil.rmtree(self._volatile, ignore_errors=True)
        for code in self._lasting.glob("*/code"):
            shutil.rmtree(code, ignore_errors=True)

    def prepare(self, loaded: Loaded) -> Path:
        """Write the folder of a new version. Raises CannotPrepare."""
        name = loaded.function.metadata.name
        self._numbers[name] = self._numbers.get(name, 0) + 1
        folder = self._volatile / name / str(self._numbers[name])
        temporary = folder.with_name(f".{folder.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._fill(temporary, loaded, self._lasting / name / "code" / folder.name)
            temporary.rename(folder)
            atomic.sync_folder(folder.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CannotPrepare(
                f"cannot prepare function {name!r}: {error.strerror or error}", where=str(error.filename or folder)
            ) from error
        return folder

    def remove(self, folder: Path) -> None:
        """A version that will not be started again."""
        shutil.rmtree(os.path.realpath(folder / "code"), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)

    def forget(self, name: str) -> None:
        """A function that is gone; what its triggers remember stays."""
        shutil.rmtree(self._volatile / name, ignore_errors=True)
        shutil.rmtree(self._lasting / name / "code", ignore_errors=True)
        for path in (self._log(name), self._log(name).with_name(f"{name}.log.1")):
            path.unlink(missing_ok=True)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _fill(self, folder: Path, loaded: Loaded, code: Path) -> None:
        # Its environment and passwords are in it.
        atomic.write(folder / "processor.yaml", dump_processor_yaml(loaded.function), mode=0o600)
        state = self._lasting / loaded.function.metadata.name / "state"
        _private(state)
        (folder / "state").symlink_to(state)
        _private(self._logs)
        (folder / "function.log").symlink_to(self._log(loaded.function.metadata.name))
        # On the disk, not in the run directory: that one is memory.
        shutil.rmtree(code, ignore_errors=True)
        _private(code.parent, 0o700 if loaded.function.spec.security_context.run_as_user is None else 0o711)
        _place_code(code, loaded)
        (folder / "code").symlink_to(code)


def _private(folder: Path, mode: int = 0o700) -> None:
    """A folder that is its owner's alone, one from an earlier time too: in it stands what events and functions said.

    With mode 0711 others may pass through it, but not look around: workers that run as another user need their code.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)


def _place_code(code: Path, loaded: Loaded) -> None:
    """A copy, not a link: a worker started again later must find this version's code, whatever is edited now."""
    embedded = embedded_source(loaded.function)
    if loaded.code_dir is not None and loaded.code_file is None and embedded is None:
        if loaded.source.is_file() and loaded.code_dir.samefile(loaded.source.parent):
            _copy_module(loaded.code_dir, loaded.function.spec.handler, code)
        else:
            _copy_folder(loaded.code_dir, code)
        return
    code.mkdir()
    if embedded is not None:
        atomic.write(code / embedded[0], embedded[1])
    elif loaded.code_file is not None:
        shutil.copy2(loaded.code_file, code / loaded.code_file.name)


def _copy_module(source: Path, handler: str, target: Path) -> None:
    """Of the files beside a specification only the handler's module: the others belong to other functions."""
    target.mkdir()
    module = handler.partition(":")[0].partition(".")[0]
    for path in source.iterdir():
        if path.is_file() and path.stem == module:
            shutil.copy2(path, target / path.name)
        elif path.is_dir() and path.name == module:
            _copy_folder(path, target / path.name)


def _copy_folder(source: Path, target: Path) -> None:
    def left_out(folder: str, names: list[str]) -> list[str]:
        top = Path(folder) == source
        return [name for name in names if name in LEFT_OUT or (top and name in LINKED)]

    shutil.copytree(source, target, symlinks=True, ignore=left_out)
    for name in LINKED:
        if (source / name).exists():
            (target / name).symlink_to(os.path.realpath(source / name))
