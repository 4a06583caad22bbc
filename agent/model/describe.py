"""The words of an error about a wrong value: what was expected, what was found, how to mend it."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct

from agent.model.positions import Node
from agent.model.spec import Duration

_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def members(kind: Any) -> list[Any]:
    """The alternatives of a union; the type itself where it is none."""
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def bare(kind: Any) -> Any:
    """The type without what `Annotated` adds."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def expected(kind: Any) -> str:
    """`a whole number from 0 to 65535`, `one of enable, disable`, `a list`."""
    if get_origin(kind) is Annotated:
        return _bounded(kind)
    if get_origin(kind) is Literal:
        choices = [str(item) for item in get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    alternatives = [item for item in members(kind) if item is not type(None)]
    if len(alternatives) > 1:
        return " or ".join(dict.fromkeys(expected(item) for item in alternatives))
    only = alternatives[0]
    if only is not kind:
        return expected(only)
    if only is Duration:
        return 'a duration such as "10s" or "500ms"'
    return _NAMES.get(only) or _collection(only)


def _collection(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, dict | Struct):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, list | tuple | set | frozenset):
        return "a list"
    return getattr(kind, "__name__", str(kind))


def _bounded(kind: Any) -> str:
    base, *extras = get_args(kind)
    text = expected(base)
    meta = next((extra for extra in extras if isinstance(extra, Meta)), None)
    if meta is None:
        return text
    if meta.ge is not None and meta.le is not None:
        return f"{text} from {meta.ge} to {meta.le}"
    sizes = [("at least {}", meta.ge), ("above {}", meta.gt), ("at most {}", meta.le), ("below {}", meta.lt)]
    unit = "characters" if base is str else "entries"
    lengths = [(f"at least {{}} {unit}", meta.min_length), (f"at most {{}} {unit}", meta.max_length)]
    bounds = [form.format(value) for form, value in sizes + lengths if value is not None]
    if meta.pattern is not None:
        bounds.append(meta.description or f"in the form {meta.pattern}")
    return f"{text}, {' and '.join(bounds)}" if bounds else text


def found(node: Node) -> str:
    """`the text "8080"`, `the number 1.5`, `a list`."""
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 40 else value[:37] + "..."}"'
    return f"the number {value}"


def mend(kind: Any, node: Node) -> str:
    """What to write instead, where that can be guessed."""
    kinds = [bare(item) for item in members(bare(kind))]
    value = node.value
    if Duration in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return f'write "{value}s" for seconds, or "{value}ms" for milliseconds'
    if isinstance(value, str) and _is_number(value) and (int in kinds or float in kinds):
        return f"write {value} without quotes"
    if isinstance(value, str) and value.lower() in ("true", "false") and bool in kinds:
        return f"write {value.lower()} without quotes"
    choices = [str(choice) for item in kinds if get_origin(item) is Literal for choice in get_args(item)]
    near = nearest(str(value), choices) if choices else ""
    if near:
        return f"did you mean {near}?"
    lists = any(_collection(item) == "a list" for item in kinds)
    return "put a dash before each entry" if lists and not isinstance(value, list) else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name` in any case; empty when none is near."""
    by_folded = {item.lower(): item for item in known}
    matches = difflib.get_close_matches(name.lower(), by_folded, 1, 0.6)
    return by_folded[matches[0]] if matches else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def element_type(kind: Any) -> Any:
    """Of a list-like or dict-like type: what its values are."""
    arguments = [item for item in typing.get_args(kind) if item is not Ellipsis]
    return arguments[-1] if arguments else Any
