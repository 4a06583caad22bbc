"""Runtimes and handlers as they are written: `python:3.11`, `main:handler`, `reverse.sh:main`.

Flow: used while a specification is completed; `runtimes/<language>` decides what to do with the result.
"""

from __future__ import annotations

import re
from pathlib import Path

EXTENSIONS = {
    ".py": "python",
    ".js": "nodejs",
    ".java": "java",
    ".go": "golang",
    ".sh": "shell",
    ".cs": "dotnetcore",
    ".rb": "ruby",
}
COMMENT_MARKS = {".py": "#", ".sh": "#", ".rb": "#", ".js": "//", ".java": "//", ".go": "//", ".cs": "//"}

_VERSION = re.compile(r"[A-Za-z0-9.+-]+", re.ASCII)
_PYTHON_HANDLER = re.compile(r"[A-Za-z0-9_.-]+(:[A-Za-z_][A-Za-z0-9_.]*)?", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*", re.ASCII)


def language_of(runtime: str) -> str:
    """The part before the colon: `python:3.11` is written in python."""
    return runtime.partition(":")[0].lower()


def extension_of(language: str) -> str:
    """`.py` for python; empty for a language without one."""
    return next((extension for extension, name in EXTENSIONS.items() if name == language), "")


def runtime_problem(runtime: str) -> str:
    """What is wrong with the spelling of a runtime; empty if nothing."""
    _, colon, version = runtime.partition(":")
    if colon and not _VERSION.fullmatch(version):
        return f"{runtime!r} has no version after the colon"
    if language_of(runtime) == "python" and version and not re.fullmatch(r"3(\.\d+){0,2}", version):
        return f"Python {version} cannot run functions"
    return ""


def handler_problem(handler: str, language: str) -> str:
    """What is wrong with a handler; empty if nothing. Only Python's form is strict."""
    if "\0" in handler or "\n" in handler:
        return "a handler is one line"
    if language == "python" and not _PYTHON_HANDLER.fullmatch(handler):
        return f"{handler!r} is not `module:function`"
    return ""


def full_handler(handler: str, language: str, code_file: str) -> str:
    """The handler with its defaults filled in. `code_file` is the name of the one source file; may be empty."""
    if language == "python" and handler and ":" not in handler:
        return f"{handler}:handler"
    if handler or language == "golang":  # Go's is found by parsing the source
        return handler
    if language in ("shell", "java") and code_file:
        return code_file if language == "shell" else Path(code_file).stem
    return f"{Path(code_file).stem}:handler" if code_file else ""


def handler_file(handler: str, language: str) -> str:
    """Name of the file a handler means, for code that comes without one. Empty when it is not a plain file name."""
    first, colon, _ = handler.partition(":")
    if language == "nodejs" and not colon:
        first = "handler"
    extension = extension_of(language)
    if extension and (language == "python" or not Path(first).suffix):
        first += extension
    is_safe = _FILE_NAME.fullmatch(first) is not None and ".." not in first
    dotted = language == "python" and "." in Path(first).stem
    return first if is_safe and not dotted else ""
