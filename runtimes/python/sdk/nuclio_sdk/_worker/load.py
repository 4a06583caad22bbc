"""Finding the handler, and saying in the author's words why it could not be found.

Flow: `module.sub:function` -> the imported function and its `init_context`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))) + os.sep


class HandlerError(Exception):
    """The handler cannot be used; the text says why and what to do."""


def load_handler(handler: str, code_dir: str) -> Callable[..., Any]:
    """Import `handler`. Dashes are legal in module names. Raises HandlerError, or what the import raises."""
    module_name, _, function_name = handler.partition(":")
    function_name = function_name or "handler"
    if not _is_module(module_name) or not all(map(_is_name, function_name.split("."))):
        raise HandlerError(f"handler {handler!r} is malformed: write it as module:function, for example main:handler")
    found = _import(module_name, code_dir)
    for part in module_name.split(".")[1:]:
        found = getattr(found, part)
    function = found
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if function is None:
        raise HandlerError(_no_such_function(found, function_name, code_dir))
    if not callable(function):
        raise HandlerError(f"handler {handler!r} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _import(module_name: str, code_dir: str) -> Any:
    try:
        return __import__(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # one that the function's own code imports
        names = (os.path.splitext(name) for name in sorted(os.listdir(code_dir)))
        there = ", ".join(stem for stem, ending in names if ending == ".py")
        raise HandlerError(f"no module {error.name!r} in {code_dir}; modules there: {there or 'none'}") from None


def init_context_of(handler: Callable[..., Any]) -> Callable[..., Any] | None:
    """`init_context` of the module that defines the handler, which need not be the one that names it."""
    module = sys.modules.get(getattr(handler, "__module__", None) or type(handler).__module__)
    return getattr(module, "init_context", None)


def _is_name(text: str) -> bool:
    return text.replace("_", "a").isalnum()


def _is_module(text: str) -> bool:
    return all(part and _is_name(part.replace("-", "_").replace("|", "_")) for part in text.split("."))


def _no_such_function(module: Any, name: str, code_dir: str) -> str:
    path = getattr(module, "__file__", None) or "built in"
    what = f"module {module.__name__!r} ({path}) has no function {name!r}"
    if not path.startswith(code_dir + os.sep):
        return f"{what}: it is not the function's own module; rename the file if it has the name of a library"
    there = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return f"{what}; it has: {', '.join(sorted(there)) or 'no functions'}"


def without_own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from its first frame on that is not the worker's, nor the import system's."""
    rest = frames
    while rest is not None:
        name = rest.tb_frame.f_code.co_filename
        if not name.startswith(_OWN) and not name.startswith("<frozen importlib"):
            return rest
        rest = rest.tb_next
    return None


def failure_text(what: str, error: BaseException, code_dir: str) -> str:
    """Why the worker cannot start, for the operator: the error, and where in the function's own files."""
    if isinstance(error, HandlerError):
        return f"{what}: {error}"
    import traceback

    frames = [
        frame
        for frame in traceback.extract_tb(without_own_frames(error.__traceback__))
        if frame.filename.startswith(code_dir + os.sep)
    ]
    lines = traceback.format_list(frames[-5:])
    last = "".join(traceback.format_exception_only(type(error), error)).strip()
    return f"{what}: {last}\n{''.join(lines)}".rstrip()
