"""Where a function is: its specification and its code, from the one path that a person gives.

A path is a folder with `function.yaml` (or `.yml`, `.json`, or a generated `processor.yaml`), such a file under any
name, a source file, or a folder with a single source file. Code is in the specification's own folder, or where
`build.path` says, or inside the specification (`build.functionSourceCode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import SpecError
from agent.model.language import EXTENSIONS

CONFIG_NAMES = ("function.yaml", "function.yml", "function.json", "processor.yaml")
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
ARCHIVES = (".zip", ".jar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".lz4", ".sz", ".rar", ".7z")


@dataclass(frozen=True, slots=True)
class Source:
    """`config` the specification, if there is one; `code` the one source file, where only that counts."""

    path: Path
    config: Path | None
    code: Path | None
    folder: Path

    @property
    def default_name(self) -> str:
        """What the function is called when its specification does not say."""
        named_after_folder = self.config is not None and self.config.name in CONFIG_NAMES
        chosen = self.config or self.code or self.folder
        return self.folder.resolve().name if named_after_folder else chosen.stem


def locate(path: Path) -> Source:
    """Find specification and code. Raises SpecError when there is neither."""
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            raise SpecError("no such file or folder", where=str(path))
    except OSError as error:
        raise SpecError(error.strerror or str(error), where=str(path)) from None
    if path.suffix.lower() in CONFIG_SUFFIXES:
        return Source(path, path, None, path.parent)
    if path.suffix.lower() in EXTENSIONS:
        return Source(path, None, path, path.parent)
    known = ", ".join((*CONFIG_SUFFIXES, *EXTENSIONS))
    raise SpecError("neither a specification nor source code", where=str(path), fix=f"known file types: {known}")


def _in_folder(folder: Path) -> Source:
    for name in CONFIG_NAMES:
        if (folder / name).is_file():
            code = folder / "code"
            is_generated = name == "processor.yaml" and code.is_dir()
            return Source(folder, folder / name, None, code if is_generated else folder)
    files = source_files(folder)
    if len(files) == 1:
        return Source(folder, None, files[0], folder)
    what = f"{len(files)} source files and no function.yaml" if files else "no function here"
    raise SpecError(what, where=str(folder), fix="write a function.yaml, or name one source file")


def source_files(folder: Path, language: str = "") -> list[Path]:
    """Files of a folder in a language (in any, when empty), sorted; hidden ones left out."""
    wanted = [extension for extension, name in EXTENSIONS.items() if language in ("", name)]
    found = (item for item in folder.iterdir() if item.suffix.lower() in wanted and not item.name.startswith("."))
    return sorted(item for item in found if item.is_file())


def read(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes of a regular file. Raises SpecError, also for a pipe or device that would block."""
    try:
        if not path.is_file():
            raise SpecError("not a regular file", where=str(path))
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def code_at(build_path: str, folder: Path) -> Path:
    """What `build.path` means. Raises SpecError when it cannot be used."""
    if "://" in build_path:
        raise SpecError("code from a URL is not supported yet", fix="download it, and give a path")
    code = folder / build_path
    try:
        exists = code.exists()
    except (OSError, ValueError) as error:
        raise SpecError(f"{build_path!r} is no path: {error}") from None
    if not exists:
        raise SpecError(f"{code} does not exist", fix="it is relative to the folder of the specification")
    if code.is_file() and code.suffix.lower() in ARCHIVES:
        raise SpecError("code in an archive is not supported yet", fix="unpack it, and give the folder")
    return code
