"""Code that came inside its specification, as base64 under `build.functionSourceCode`."""

from __future__ import annotations

import base64
import binascii

from agent.model.errors import SpecError
from agent.model.language import handler_file, language_of
from agent.model.spec import Function, FunctionSpec


def decode_source(text: str) -> bytes:
    """The code, with lines ending in LF. Raises SpecError for what is not base64."""
    try:
        code = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SpecError("not base64", where="build.functionSourceCode", fix="make it with `base64 -w0 FILE`") from None
    return code.replace(b"\r\n", b"\n")


def embedded_source(function: Function) -> tuple[str, bytes] | None:
    """The name of the file to write and its content; None for a function whose code is elsewhere."""
    spec = function.spec
    if not spec.build.function_source_code:
        return None
    return handler_file(spec.handler, language_of(spec.runtime)), decode_source(spec.build.function_source_code)


def embedded_problem(spec: FunctionSpec) -> SpecError | None:
    """Why the embedded code cannot be used: `where` is the key below `spec`. None if it can."""
    try:
        decode_source(spec.build.function_source_code)
    except SpecError as error:
        return error
    if spec.handler and not handler_file(spec.handler, language_of(spec.runtime)):
        what = f"{spec.handler!r} does not name a single file, and functionSourceCode is one"
        return SpecError(what, where="handler", fix="write module:function, the module without dots or slashes")
    return None
