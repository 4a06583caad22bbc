"""From a tree with positions to frozen values, led by the fields of a Struct; every problem is found in one pass.

Flow: `agent.model.positions` -> Node -> [decode] -> Struct. Promise: keys of structures match without regard to
case, keys of maps whose names the user chose stay as they are; an unknown key is a warning that names the nearest
known one; a wrong type is an error. Nothing is guessed: a quoted number is text. Two mercies, both as nuclio's reader
has them: an unquoted number where text is wanted is taken as written (with a warning), and `null` is "not given".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Struct

from agent.model.describe import bare, element_type, expected, found, members, mend, nearest
from agent.model.duration import parse_duration
from agent.model.errors import SpecError
from agent.model.findings import Findings, Place
from agent.model.positions import Entry, Node, to_plain
from agent.model.spec import Duration, Function, FunctionSpec
from agent.model.tolerated import MISSED, SILENT, tolerated

FAILED: Any = object()
"""Stands for a value that could not be read; the reason is among the findings."""

Hook = Callable[["Decoder", Node, str], Any]

_SPEC_FIELDS = msgspec.structs.fields(FunctionSpec)

_LEADING_KEY = re.compile(r"(`?)([A-Za-z][A-Za-z0-9]*)((?:\.[A-Za-z0-9]+)*)(`?)(:?)(?= |$)", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+", re.ASCII)

_YAML_1_1 = {"yes": True, "on": True, "no": False, "off": False}
"""What nuclio's reader takes for a boolean when it stands without quotes."""


class Decoder:
    """Reads one function. `hooks` read the value of a field by the name of its path, such as `spec.triggers`."""

    def __init__(self, findings: Findings, hooks: Mapping[str, Hook] | None = None) -> None:
        self.findings = findings
        self.hooks = dict(hooks or {})
        self.places: dict[str, Place] = {}

    def struct(self, node: Node, kind: type[Struct], path: str) -> Any:
        """A `kind`, or FAILED. Fields that cannot be read keep their default, so that checks of others go on."""
        if not isinstance(node.value, dict):
            return self.wrong(node, kind, path)
        fields = {item.encode_name.lower(): item for item in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        complete = True
        for folded, (name, entry) in self.folded(node, path).items():
            prefix = f"{path}.{entry.within}" if entry.within else path
            field = fields.get(folded)
            if field is None:
                self.unknown(kind, name, entry, prefix)
            elif entry.node.value is not None or field.required:
                value = self.value(entry.node, field.type, _join(prefix, field.encode_name))
                complete = complete and value is not FAILED
                values[field.name] = value
        values = {name: value for name, value in values.items() if value is not FAILED}
        return self._build(node, kind, path, values, complete)

    def _build(self, node: Node, kind: type[Struct], path: str, values: dict[str, Any], complete: bool) -> Any:
        missing = [item for item in msgspec.structs.fields(kind) if item.required and item.name not in values]
        for item in missing:
            if complete:
                fix = f"write {item.encode_name}: {expected(item.type)}"
                self.findings.error(f"key {item.encode_name!r} is missing", node.place, path, fix)
        checks_itself = hasattr(kind, "__post_init__")
        if missing or (checks_itself and not complete):
            return FAILED
        try:
            return kind(**values)
        except SpecError as error:
            self.findings.error(error.what, node.place, path, error.fix)
        except (ValueError, TypeError) as error:
            self._refused(str(error), node, kind, path)
        return FAILED

    def _refused(self, text: str, node: Node, kind: type[Struct], path: str) -> None:
        """What `__post_init__` says, at the key that its text begins with: `url: missing` or "`url` is missing"."""
        start = _LEADING_KEY.match(text)
        key = start[2] if start else ""
        known = [item.encode_name for item in msgspec.structs.fields(kind) if item.encode_name.lower() == key.lower()]
        if known and start:
            prefixes = [f"{path}.{known[0]}", f"{path}.attributes.{known[0]}"]
            key_path = next((item for item in prefixes if item in self.places), prefixes[0])
            if start[5] and start[1] == start[4]:  # `key:` alone, not "`read: lines` cannot ..."
                text = text[start.end() :].lstrip()
            place = self.places.get(key_path + start[3]) or self.places.get(key_path, node.place)
            self.findings.error(text, place, key_path + start[3])
        else:
            self.findings.error(text, node.place, path)

    def folded(self, node: Node, path: str) -> dict[str, tuple[str, Entry]]:
        """The keys of a mapping in lower case. The same key twice in different case is an error."""
        keys: dict[str, tuple[str, Entry]] = {}
        for name, entry in node.entries.items():
            folded = name.lower()
            if folded in keys:
                first, earlier = keys[folded]
                fix = f"{first!r} on line {earlier.place.line} is the same key: remove one"
                self.findings.error("key is given twice", entry.place, _join(path, name), fix)
            else:
                keys[folded] = (name, entry)
        return keys

    def unknown(self, kind: type[Struct], name: str, entry: Entry, path: str) -> None:
        """A key that is no field: tolerated because nuclio has it, or most likely misspelt."""
        key = _join(path, name)
        reasons = tolerated(kind)
        if name.lower() in SILENT and name.lower() in reasons:
            return
        if name.lower() in reasons:
            tell = self.findings.warning if name.lower() in MISSED else self.findings.info
            tell(f"accepted and ignored: {reasons[name.lower()]}", entry.place, key)
            return
        names = [item.encode_name for item in msgspec.structs.fields(kind)]
        near = nearest(name, names)
        if kind is Function and any(item.encode_name.lower() == name.lower() for item in _SPEC_FIELDS):
            near = f"spec.{name}"
        fix = f"did you mean {near!r}?" if near else f"known keys: {', '.join(names)}"
        self.findings.warning("unknown key, ignored", entry.place, key, fix)

    def value(self, node: Node, kind: Any, path: str) -> Any:
        """One value of any type a field may have, or FAILED."""
        self.places[path] = node.place
        if path in self.hooks:
            return self.hooks[path](self, node, path)
        if len(members(kind)) > 1:
            return self._union(node, members(kind), kind, path)
        plain = bare(kind)
        origin = get_origin(plain) or plain
        if plain is Any:
            return to_plain(node)
        if plain is Duration:
            return self._duration(node, path)
        if not isinstance(origin, type):
            return self._leaf(node, kind, path)
        if issubclass(origin, Struct):
            return self.struct(node, origin, path)
        if issubclass(origin, Mapping):
            return self._bounded(node, self._mapping(node, kind, path), kind, path)
        if issubclass(origin, Sequence | Set) and not issubclass(origin, str | bytes):
            return self._bounded(node, self._sequence(node, kind, path), kind, path)
        return self._leaf(node, kind, path)

    def wrong(self, node: Node, kind: Any, path: str) -> Any:
        self.findings.error(f"expected {expected(kind)}, found {found(node)}", node.place, path, mend(kind, node))
        return FAILED

    def _union(self, node: Node, alternatives: list[Any], kind: Any, path: str) -> Any:
        """`X | None`, a scalar of several types, or structures told apart by a tag."""
        if node.value is None and type(None) in alternatives:
            return None
        alternatives = [item for item in alternatives if item is not type(None)]
        if len(alternatives) == 1:
            return self.value(node, alternatives[0], path)
        structs = [item for item in alternatives if isinstance(item, type) and issubclass(item, Struct)]
        if isinstance(node.value, dict) and structs and structs[0].__struct_config__.tag_field:
            return self._tagged(node, structs, path)
        if isinstance(node.value, dict) and len(structs) == 1:
            return self.struct(node, structs[0], path)
        for item in sorted(alternatives, key=lambda item: bare(item) is not type(node.value)):
            attempt = Decoder(Findings(), self.hooks)
            value = attempt.value(node, item, path)
            if value is not FAILED:
                self.findings.items += attempt.findings.items
                return value
        return self.wrong(node, kind, path)

    def _tagged(self, node: Node, structs: list[type[Struct]], path: str) -> Any:
        field = str(structs[0].__struct_config__.tag_field)
        by_tag = {str(item.__struct_config__.tag): item for item in structs}
        tag = node.get(field)
        if tag is None or str(tag.value) not in by_tag:
            place, was = (tag.place, found(tag)) if tag else (node.place, "nothing")
            near = nearest(str(tag.value), by_tag) if tag else ""
            fix = f"did you mean {near}?" if near else ""
            what = f"expected one of {', '.join(by_tag)}, found {was}"
            self.findings.error(what, place, _join(path, field), fix)
            return FAILED
        rest = {name: entry for name, entry in node.entries.items() if name.lower() != field.lower()}
        return self.struct(Node(rest, node.place), by_tag[str(tag.value)], path)

    def _mapping(self, node: Node, kind: Any, path: str) -> Any:
        if not isinstance(node.value, dict):
            return self.wrong(node, kind, path)
        of = element_type(bare(kind))
        items = {name: self.value(entry.node, of, _join(path, name)) for name, entry in node.value.items()}
        return FAILED if any(item is FAILED for item in items.values()) else items

    def _sequence(self, node: Node, kind: Any, path: str) -> Any:
        if not isinstance(node.value, list):
            return self.wrong(node, kind, path)
        plain = bare(kind)
        of, arguments = element_type(plain), get_args(plain)
        fixed = get_origin(plain) is tuple and Ellipsis not in arguments
        types = list(arguments) if fixed and len(arguments) == len(node.value) else [of] * len(node.value)
        if fixed and len(arguments) != len(node.value):
            return self.wrong(node, kind, path)
        pairs = zip(node.value, types, strict=True)
        items = [self.value(item, one, f"{path}[{index}]") for index, (item, one) in enumerate(pairs)]
        if any(item is FAILED for item in items):
            return FAILED
        return items if get_origin(plain) in (list, None) else msgspec.convert(items, plain)

    def _bounded(self, node: Node, value: Any, kind: Any, path: str) -> Any:
        """The length limits that `Annotated` puts on a list or a mapping."""
        if value is FAILED or get_origin(kind) is not Annotated:
            return value
        for meta in get_args(kind)[1:]:
            least, most = getattr(meta, "min_length", None), getattr(meta, "max_length", None)
            if (least is not None and len(value) < least) or (most is not None and len(value) > most):
                self.findings.error(f"expected {expected(kind)}, found {len(value)}", node.place, path)
                return FAILED
        return value

    def _duration(self, node: Node, path: str) -> Any:
        if not isinstance(node.value, str):
            return self.wrong(node, Duration, path)
        try:
            return parse_duration(node.value)
        except ValueError:
            fix = f'write "{node.value.strip()}s"' if node.value.strip().isdigit() else "units are ns, us, ms, s, m, h"
            what = f"expected {expected(Duration)}, found {found(node)}"
            self.findings.error(what, node.place, path, fix)
            return FAILED

    def _leaf(self, node: Node, kind: Any, path: str) -> Any:
        value = node.value
        if bare(kind) is str:
            value = self._text(node, path)
        elif bare(kind) is bool and node.plain and isinstance(value, str):
            value = _YAML_1_1.get(value.lower(), value)
        elif bare(kind) is int and isinstance(value, float):
            return self.wrong(node, kind, path)
        elif isinstance(value, int) and node.plain and _LEADING_ZERO.fullmatch(node.text):
            what = f"a number with a leading zero, read as {value}"
            self.findings.warning(what, node.place, path, "use quotes if it is not a decimal number")
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return self.wrong(node, kind, path)

    def _text(self, node: Node, path: str) -> Any:
        """Text as written; nuclio's reader also turns an unquoted number or boolean into text."""
        value = node.value
        if isinstance(value, bool) or (node.plain and isinstance(value, str) and value.lower() in _YAML_1_1):
            text = str(_YAML_1_1.get(str(value).lower(), value)).lower()
            self.findings.warning(f"a boolean where text is expected, read as {text!r}", node.place, path, "use quotes")
            return text
        if isinstance(value, int | float):
            self.findings.warning("a number where text is expected, read as written", node.place, path, "use quotes")
            return node.text
        return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
