"""Reads the `triggers` of a function: each by the spec of its own kind, wherever its keys stand.

Flow: a hook of `agent.model.decode` for `spec.triggers`. A kind's own keys may stand under `attributes`, as nuclio
writes them, or beside the common keys; never in both places.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from agent.model.decode import FAILED, Decoder
from agent.model.describe import found, nearest
from agent.model.errors import SpecError
from agent.model.findings import Findings, Place
from agent.model.names import TRIGGER_RULE, is_trigger_name
from agent.model.positions import Entry, Node
from agent.model.registry import folder_of, trigger_kind, trigger_kinds
from agent.model.spec import TriggerSpec

DEFAULT_HTTP = "default-http"
"""The trigger that is added to a function without an http trigger."""

COMMON = {item.encode_name.lower(): item.encode_name for item in msgspec.structs.fields(TriggerSpec)}

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)


def decode_triggers(decoder: Decoder, node: Node, path: str) -> Any:
    """A dict of name -> the kind's own TriggerSpec. A trigger that cannot be read is left out, its errors found."""
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        decoder.findings.error(
            f"expected a mapping of names to triggers, found {found(node)}",
            node.place,
            path,
            "write each trigger under a name of its own: `triggers: {web: {kind: http}}`",
        )
        return FAILED
    triggers: dict[str, TriggerSpec] = {}
    for name, entry in node.entries.items():
        decoder.places[f"{path}.{name}"] = entry.place
        spec = _decode_trigger(decoder, name, entry, f"{path}.{name}")
        if spec is not FAILED:
            triggers[name] = spec
    return triggers


def _decode_trigger(decoder: Decoder, name: str, entry: Entry, path: str) -> Any:
    findings, node = decoder.findings, entry.node
    if not is_trigger_name(name):
        findings.error(f"{name[:80]!r} cannot name a trigger", entry.place, path, f"use {TRIGGER_RULE}")
    if not isinstance(node.value, dict):
        findings.error(f"expected a mapping, found {found(node)}", node.place, path, "a trigger has at least a kind")
        return FAILED
    kind = _kind_of(findings, node, entry.place, path)
    if kind is FAILED:
        return FAILED
    spec = decoder.struct(lifted(decoder, node, kind, path), kind, path)
    if spec is FAILED:
        return FAILED
    if spec.name and spec.name != name:
        place = decoder.places.get(f"{path}.name", node.place)
        findings.error(f"the trigger is called {name!r} above", place, f"{path}.name", "remove this key")
    return replace(spec, name=name, kind=folder_of(spec.kind).replace("_", "-"))


def _kind_of(findings: Findings, node: Node, place: Place, path: str) -> Any:
    """The spec class of the trigger's kind, or FAILED."""
    kind = node.get("kind")
    known = f"known kinds: {', '.join(trigger_kinds())}"
    if kind is None or kind.value is None:
        findings.error("key 'kind' is missing", place, path, known)
        return FAILED
    if not isinstance(kind.value, str) or not _KIND.fullmatch(kind.value):
        findings.error(f"expected the name of a kind, found {found(kind)}", kind.place, f"{path}.kind", known)
        return FAILED
    try:
        return trigger_kind(kind.value).spec
    except SpecError as error:
        near = nearest(kind.value, trigger_kinds())
        fix = f"did you mean {near!r}? {error.fix}" if near and error.fix == known else error.fix
        findings.error(error.what, kind.place, f"{path}.kind", fix)
        return FAILED


def lifted(decoder: Decoder, node: Node, kind: type[TriggerSpec], path: str) -> Node:
    """The trigger with what stands under `attributes` beside its common keys, and without `maxWorkers`."""
    entries = {name: entry for name, entry in node.entries.items() if name.lower() != "attributes"}
    attributes = node.get("attributes")
    if attributes is not None and attributes.value is not None:
        _lift(decoder, entries, attributes, kind, path)
    _without_max_workers(decoder, entries, path)
    return Node(entries, node.place)


def _lift(decoder: Decoder, entries: dict[str, Entry], attributes: Node, kind: type[TriggerSpec], path: str) -> None:
    path = f"{path}.attributes"
    if not isinstance(attributes.value, dict):
        decoder.findings.error(f"expected a mapping, found {found(attributes)}", attributes.place, path)
        return
    beside = {name.lower(): entry for name, entry in entries.items()}
    for folded, (name, entry) in decoder.folded(attributes, path).items():
        if folded in COMMON:
            fix = f"write {COMMON[folded]} beside kind, not under attributes"
            decoder.findings.warning("a key of every trigger, ignored here", entry.place, f"{path}.{name}", fix)
        elif folded in beside:
            fix = f"it also stands beside attributes, on line {beside[folded].place.line}: remove one"
            decoder.findings.error("key is given twice", entry.place, f"{path}.{name}", fix)
        else:
            entries[name] = Entry(entry.place, entry.node, within="attributes")


def _without_max_workers(decoder: Decoder, entries: dict[str, Entry], path: str) -> None:
    """`maxWorkers` is the old name of `numWorkers`, used when that is absent or 0; 0 by itself means 1."""
    by_folded = {name.lower(): name for name in entries}
    count = by_folded.get("numworkers")
    if count is not None and entries[count].node.value in (0, None) and entries[count].node.value is not False:
        del entries[count]
        count = None
    old = by_folded.get("maxworkers")
    if old is None:
        return
    entry = entries.pop(old)
    ignored = ", and ignored because numWorkers is given" if count else ""
    decoder.findings.warning(f"an old name{ignored}", entry.place, f"{path}.{old}", "write numWorkers")
    if count is None and entry.node.value != 0:
        entries["numWorkers"] = entry
