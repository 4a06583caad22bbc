"""JSON Schema of function.yaml, made from the same Structs that check it, for editors.

JSON Schema cannot say that keys match in any case, so unknown ones pass; where the loader only warns (a number for
text) it is strict. Own keys of a trigger are listed twice, beside the common ones and under `attributes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

from agent.model.describe import bare, element_type, members
from agent.model.duration import format_duration
from agent.model.registry import KIND_ALIASES, trigger_kind, trigger_kinds
from agent.model.spec import Duration, Function, Metadata, TriggerSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DURATION_PATTERN = r"^([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h))([0-9.]+(ns|us|µs|ms|s|m|h))*$|^0$"

_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def function_schema() -> dict[str, Any]:
    """The whole schema. Imports every trigger there is."""
    generator = _Generator()
    generator.definitions["Duration"] = {
        "type": "string",
        "pattern": DURATION_PATTERN,
        "description": 'A Go duration, such as "500ms", "10s" or "1h30m".',
    }
    root = generator.schema(Function)
    names = [generator.trigger(kind, trigger_kind(kind).spec) for kind in trigger_kinds()]
    generator.definitions["TriggerSpec"] = {"anyOf": [_reference(name) for name in names]}
    return {
        "$schema": DIALECT,
        "title": "Headrace function",
        **root,
        "$defs": dict(sorted(generator.definitions.items())),
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


class _Generator:
    """Collects the definitions of Structs while types are turned into schemas."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def schema(self, kind: Any) -> dict[str, Any]:
        alternatives = members(kind)
        if len(alternatives) > 1:
            return {"anyOf": [self.schema(item) for item in alternatives]}
        if get_origin(kind) is Annotated:
            return self.schema(bare(kind)) | _limits(kind)
        if get_origin(kind) is Literal:
            return {"enum": list(get_args(kind))}
        if kind is Duration:
            return _reference("Duration")
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        return self._compound(kind)

    def _compound(self, kind: Any) -> dict[str, Any]:
        origin = get_origin(kind) or kind
        if not isinstance(origin, type):
            return {}
        if issubclass(origin, TriggerSpec):
            return _reference("TriggerSpec")
        if issubclass(origin, Struct):
            return self._struct(origin)
        if issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.schema(element_type(kind))}
        if issubclass(origin, Sequence | Set):
            return {"type": "array", "items": {} if origin is tuple else self.schema(element_type(kind))}
        return {}

    def _struct(self, kind: type[Struct]) -> dict[str, Any]:
        name = _definition_name(kind)
        if name not in self.definitions:
            self.definitions[name] = {}  # stops a Struct that holds itself
            self.definitions[name] = self._object(kind, list(fields(kind)))
        return _reference(name)

    def _object(self, kind: type[Struct], of: list[FieldInfo]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "object",
            "description": " ".join((kind.__doc__ or "").split()),
            "properties": {item.encode_name: self._property(item) for item in of},
        }
        tag = kind.__struct_config__.tag
        if tag is not None:
            found["properties"][str(kind.__struct_config__.tag_field)] = {"const": tag}
        # metadata, spec and name may be left out of a file: they are then filled in
        required = [item.encode_name for item in of if item.required and kind not in (Function, Metadata)]
        return found | ({"required": required} if required else {})

    def _property(self, item: FieldInfo) -> dict[str, Any]:
        found = self.schema(item.type)
        default = msgspec.to_builtins(item.default, enc_hook=_encode) if item.default is not msgspec.NODEFAULT else None
        plain = isinstance(default, str | int | float) and not isinstance(item.default, Struct)
        return found | ({"default": default} if plain else {})

    def trigger(self, kind: str, spec: type[TriggerSpec]) -> str:
        """Defines one kind of trigger; returns the name of its definition."""
        common = {item.name for item in fields(TriggerSpec)}
        everything = list(fields(spec))
        own = [item for item in everything if item.name not in common]
        found = self._object(spec, everything)
        found["properties"]["kind"] = {"enum": _spellings(kind)}
        attributes = {item.encode_name: self._property(item) for item in own}
        found["properties"]["attributes"] = {"type": "object", "properties": attributes}
        found["required"] = ["kind"]
        self.definitions[f"trigger.{kind}"] = found
        return f"trigger.{kind}"


def _encode(value: Any) -> Any:
    return format_duration(value) if isinstance(value, Duration) else str(value)


def _definition_name(kind: type[Struct]) -> str:
    """`Build`, and `mqtt.Subscription` for what belongs to a trigger: two triggers may use one name."""
    parts = kind.__module__.split(".")
    return f"{parts[2]}.{kind.__name__}" if parts[:2] == ["agent", "triggers"] and len(parts) > 2 else kind.__name__


def _limits(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for meta in (item for item in get_args(kind)[1:] if isinstance(item, Meta)):
        is_text = bare(kind) is str
        keys = [
            ("minimum", meta.ge),
            ("maximum", meta.le),
            ("exclusiveMinimum", meta.gt),
            ("exclusiveMaximum", meta.lt),
        ]
        keys += [("minLength" if is_text else "minItems", meta.min_length)]
        keys += [("maxLength" if is_text else "maxItems", meta.max_length)]
        found |= {key: value for key, value in keys if value is not None}
        found |= {"pattern": meta.pattern} if meta.pattern is not None else {}
    return found


def _spellings(kind: str) -> list[str]:
    return [kind, *(alias for alias, meant in KIND_ALIASES.items() if meant == kind)]
