"""Reads a Python function's module without running it: what would keep its worker from starting is told at once.

Flow: `headrace validate` -> loaded function -> [here] -> findings.
Promise: no import, so nothing of the function runs; nothing is called an error that Python could make good at run time.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from agent.model.describe import nearest
from agent.model.errors import SpecError
from agent.model.findings import Finding, Level, Place
from agent.model.language import language_of
from agent.model.load import Loaded, embedded_source
from agent.model.positions import LARGEST_FILE
from agent.model.source import CONFIG_NAMES, read, source_files

KEY = "spec.handler"
DYNAMIC = frozenset(["globals", "locals", "vars", "exec", "setattr", "__dict__", "modules", "__getattr__"])
"""Whoever uses one of these may define names that the text does not show."""


def code_findings(loaded: Loaded) -> list[Finding]:
    """What is wrong with the handler's module."""
    spec = loaded.function.spec
    if language_of(spec.runtime) != "python":
        return []
    module, _, function = spec.handler.partition(":")
    embedded = embedded_source(loaded.function)
    if embedded is not None:
        return _checked(embedded[1], f"{loaded.source}: functionSourceCode", function, spec.runtime)
    if loaded.code_dir is None:
        return []
    file = _module_file(loaded.code_dir, module)
    if file is None:
        return _missing(loaded, loaded.code_dir, module)
    try:
        code = read(file, LARGEST_FILE)
    except SpecError as error:
        return [Finding("error", error.what, Place(error.where or str(file)))]
    return _checked(code, str(file), function, spec.runtime) if len(code) <= LARGEST_FILE else []


def _module_file(folder: Path, module: str) -> Path | None:
    path = folder.joinpath(*module.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((item for item in candidates if item.is_file()), None)


def _missing(loaded: Loaded, folder: Path, module: str) -> list[Finding]:
    """An error where nothing else can bring the module: no packages beside it, none that is made or installed."""
    first = module.partition(".")[0]
    own = loaded.source.is_dir() or loaded.source.name in CONFIG_NAMES
    others = [first, ".venv", "venv", *(item.name for item in folder.glob(f"{first}.*.so"))]
    packages = any((folder / name).exists() for name in others)
    if not own or packages or loaded.function.spec.build.commands or _is_installed(first):
        return []
    there = ", ".join(item.name for item in source_files(folder, "python")[:10]) or "no Python file"
    return [Finding("error", f"{first}.py is not in {folder}", Place(str(loaded.source)), KEY, f"there: {there}")]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _checked(code: bytes, file: str, function: str, runtime: str) -> list[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about style, for its author's own tools
            tree = ast.parse(code, file)
    except SyntaxError as error:
        level: Level = "warning" if _is_newer(runtime) else "error"
        place = Place(file, error.lineno or 1, max(error.offset or 1, 1))
        return [Finding(level, f"not valid Python: {error.msg}", place)]
    except (ValueError, RecursionError, MemoryError) as error:
        return [Finding("error", f"not valid Python: {error}", Place(file))]
    wanted = function.partition(".")[0]
    defined = _defined(tree)
    if defined is None or wanted in defined:
        return []
    near = nearest(wanted, defined) or (nearest("handler", defined) if len(defined) > 1 else next(iter(defined), ""))
    fix = f"did you mean {near!r}?" if near else f"write: def {wanted}(context, event)"
    return [Finding("error", f"the module does not define {wanted!r}", Place(file), KEY, fix)]


def _is_newer(runtime: str) -> bool:
    """The function is for a newer Python than this one, which may not know all of its syntax."""
    numbers = runtime.partition(":")[2].split(".")[:2]
    return len(numbers) == 2 and all(map(str.isdecimal, numbers)) and tuple(map(int, numbers)) > sys.version_info[:2]


def _defined(tree: ast.Module) -> set[str] | None:
    """Names that the module has once it is imported; None where that cannot be seen in its text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and _word(node) in DYNAMIC:
            return None
        if isinstance(node, ast.ImportFrom) and any(item.name == "*" for item in node.names):
            return None
    names = {name for node in _at_top(tree) for name in _names(node)}
    names.update(name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)
    return None if "__getattr__" in names else names


def _word(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _at_top(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that is in the module's own scope, also below `if` and `try`."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _at_top(child)


def _names(node: ast.AST) -> Iterator[str]:
    """What one node binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (item.asname or item.name.partition(".")[0] for item in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
