"""`processor.yaml`: what the agent writes for a processor, and how the processor reads it in a millisecond.

It is JSON, which is YAML, with every default filled in, and it bears a mark of its own: a file with the mark was
checked when it was written and is taken as it is; any other file goes the long way through `agent.model.load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from agent.model.duration import format_duration, parse_duration
from agent.model.errors import SpecError
from agent.model.registry import trigger_kind
from agent.model.spec import Duration, Function, FunctionSpec, TriggerSpec

MARK = "headrace.processor/1"


def dump_processor_yaml(function: Function) -> bytes:
    """The function as JSON, defaults filled in. Holds what `env` and passwords hold: write it for its owner only."""
    fields = {"apiVersion": MARK, "metadata": function.metadata, "spec": function.spec}
    return msgspec.json.format(msgspec.json.encode(fields, enc_hook=_encode), indent=1) + b"\n"


def read_generated(data: bytes, where: str) -> Function | None:
    """The function of a generated file; None when the file is not one. Raises SpecError when it is damaged."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("apiVersion") != MARK:
        return None
    try:
        triggers = raw["spec"].pop("triggers")
        function = msgspec.convert({"metadata": raw["metadata"], "spec": raw["spec"]}, Function, dec_hook=_decode)
        read = {str(name): _trigger(item) for name, item in triggers.items()}
    except (msgspec.ValidationError, KeyError, AttributeError, TypeError) as error:
        raise SpecError(f"a damaged processor.yaml: {error}", where=where, fix="deploy the function again") from None
    spec: FunctionSpec = msgspec.structs.replace(function.spec, triggers=read)
    return msgspec.structs.replace(function, spec=spec)


def load_generated(path: Path) -> Function | None:
    """`read_generated` of a file, or of the `processor.yaml` in a folder."""
    file = path / "processor.yaml" if path.is_dir() else path
    try:
        return read_generated(file.read_bytes(), str(file))
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror or error}", where=str(file)) from None


def _trigger(raw: dict[str, Any]) -> TriggerSpec:
    return msgspec.convert(raw, trigger_kind(raw["kind"]).spec, dec_hook=_decode)


def _encode(value: Any) -> Any:
    if isinstance(value, Duration):
        return format_duration(value)
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration and isinstance(value, str):
        return parse_duration(value)
    raise NotImplementedError(kind)
