"""From what a handler returned or raised to a reply record. The table is in this runtime's README."""

from __future__ import annotations

import json

from ..exceptions import ExceptionWithResponse
from ..json_encoder import Encoder
from ..response import Response

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shmem._channel import WorkerChannel

    Headers = dict[str, str] | list[tuple[str, str]] | None
    Reply = tuple[int, str, Headers, str | bytes | bytearray | memoryview]
    """Status, content type, headers, body: the arguments of `WorkerChannel.reply` after the id."""

TEXT = "text/plain"
JSON = "application/json"

_encode = Encoder().encode
_VERBATIM = (str, bytes, bytearray, memoryview)
_JSON = (dict, list)
_GO_KINDS: tuple[tuple[type, str], ...] = (
    (str, "string"),
    (bool, "bool"),
    (int, "number"),
    (float, "number"),
    (dict, "object"),
    (list, "array"),
    (tuple, "array"),
)


def reply_to(result: Any) -> Reply:
    """The reply that `result` stands for. Raises what encoding it raises."""
    if isinstance(result, _VERBATIM):
        return 200, TEXT, None, result
    if isinstance(result, Response):
        return _of_response(result)
    if isinstance(result, _JSON):
        return 200, JSON, None, _encode(result)
    if isinstance(result, tuple) and len(result) == 2:
        return _of_pair(*result)
    return 200, TEXT, None, str(result)


def _of_pair(status: Any, body: Any) -> Reply:
    if type(status) is not int:
        return _go_error(status, "status_code", "int")
    if isinstance(body, str):
        return _checked(status), TEXT, None, body
    return _checked(status), JSON, None, _encode(body)


def _of_response(response: Response) -> Reply:
    status, content_type, body = response.status_code, response.content_type, response.body
    if isinstance(body, dict):
        body, content_type = json.dumps(body), JSON
    elif not isinstance(body, _VERBATIM):
        body = str(body)
    if not isinstance(content_type, str):
        return _go_error(content_type, "content_type", "string")
    if type(status) is not int:
        return _go_error(status, "status_code", "int")
    return _checked(status), content_type, _headers(response.headers), body


def _checked(status: int) -> int:
    """0 stands for 200, as in nuclio."""
    if status == 0:
        return 200
    if not 100 <= status <= 999:
        raise ValueError(f"the handler returned status {status}; statuses are numbers from 100 to 999")
    return status


def _headers(headers: Any) -> Headers:
    """Strings as they are; numbers and booleans as text; a list gives one header a value; None is left out."""
    if not headers:
        return None
    for name, value in headers.items():
        if type(value) is not str or type(name) is not str:
            return [(_text(name), _text(one)) for name, value in headers.items() for one in _values(value)]
    return dict(headers)


def _values(value: Any) -> Any:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _go_error(value: Any, field: str, wanted: str) -> Reply:
    """Functions' tests rely on this text: it is what nuclio's processor, written in Go, says."""
    kind = next((name for of, name in _GO_KINDS if isinstance(value, of)), "object")
    return 500, TEXT, None, f"json: cannot unmarshal {kind} into Go struct field Result.{field} of type {wanted}"


def reply_to_error(error: BaseException) -> Reply:
    """The reply when the handler raised: 500 with the traceback, or what an ExceptionWithResponse says."""
    if isinstance(error, ExceptionWithResponse):
        try:
            return _of_response(Response({}, error.body, error.content_type, error.status_code))
        except Exception as worse:
            error = worse
    return 500, TEXT, None, error_text(error)


def error_text(error: BaseException) -> str:
    """`Exception caught in handler - "<error>": <traceback>`, the worker's own frames left out."""
    import traceback

    from .load import without_own_frames

    try:
        text = str(error)
    except Exception:
        text = type(error).__name__
    try:
        lines = traceback.format_exception(type(error), error, without_own_frames(error.__traceback__))
    except Exception:  # an exception whose parts raise when they are printed
        lines = [type(error).__name__]
    return f'Exception caught in handler - "{text}": {"".join(lines)}'


def answerer(channel: WorkerChannel, fatal: tuple[type[Exception], ...]) -> Callable[[int, Any], None]:
    """A function that answers event `id` with a handler's result. Only `fatal` errors come out of it."""
    reply = channel.reply

    def answer(id: int, result: Any) -> None:
        try:
            reply(id, *reply_to(result))
        except fatal:
            raise
        except BaseException as error:  # encoding runs code of the user's (`__repr__`, `__log__`); a reply may not fit
            reply(id, *reply_to_error(error))

    return answer
