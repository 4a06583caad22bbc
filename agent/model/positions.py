"""YAML and JSON with the line and column of every value, so that an error can point at what it means.

Flow: bytes of a file -> [positions] -> Node -> `agent.model.decode`. Promise: whatever the bytes are, either a Node
whose size is bounded, or a SpecError that says where and how to mend it. ruamel.yaml is imported on first use only:
a processor reads generated JSON and never pays for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.model.errors import SpecError
from agent.model.findings import Place

LARGEST_FILE = 1 << 20
MOST_VALUES = 100_000
"""After aliases are followed: a few lines of YAML can otherwise stand for billions of values."""

DEEPEST = 60

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
)


@dataclass(slots=True)
class Node:
    """One value: None, bool, int, float, str, a list of Node or a dict of name -> Entry.

    `text` is a scalar as it was written; `plain` says that it stood without quotes.
    """

    value: Any
    place: Place
    text: str = ""
    plain: bool = False

    @property
    def entries(self) -> dict[str, Entry]:
        """Of a mapping; empty for everything else."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, key: str) -> Node | None:
        """The value of a key of a mapping, matched without regard to case."""
        for name, entry in self.entries.items():
            if name.lower() == key.lower():
                return entry.node
        return None


@dataclass(slots=True)
class Entry:
    """One key of a mapping. `within` names the sub-mapping it was lifted out of, for its key path."""

    place: Place
    node: Node
    within: str = ""


def parse(data: bytes, file: str, *, lines_before: int = 0, columns_before: int = 0) -> Node:
    """Read one YAML or JSON document. The offsets are where the text begins inside `file`. Raises SpecError."""
    text = _decode(data, file)
    try:
        root = _compose(text, file, lines_before, columns_before)
        return _Converter(file, lines_before, columns_before).convert(root)
    except RecursionError:
        raise SpecError("nested too deeply", where=file, fix=f"at most {DEEPEST} levels are read") from None


def from_plain(value: Any, file: str) -> Node:
    """A tree without positions, of values that JSON could hold."""
    place = Place(file)
    if isinstance(value, dict):
        return Node({str(key): Entry(place, from_plain(item, file)) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([from_plain(item, file) for item in value], place)
    return Node(value, place, str(value))


def to_plain(node: Node) -> Any:
    """The bare values of a tree."""
    if isinstance(node.value, dict):
        return {key: to_plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [to_plain(item) for item in node.value]
    return node.value


def _decode(data: bytes, file: str) -> str:
    if len(data) > LARGEST_FILE:
        raise SpecError(f"{len(data)} bytes", where=file, fix=f"a specification has at most {LARGEST_FILE} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError("the text is UTF-16", where=file, fix="save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise SpecError(what, where=str(Place(file, line, column)), fix="save the file as UTF-8") from None
    # JSON may be indented with tabs, which YAML refuses; inside its strings a bare tab is not allowed anyway.
    return text.replace("\t", " ") if text.lstrip()[:1] in ("{", "[") else text


def _compose(text: str, file: str, lines_before: int, columns_before: int) -> Any:
    """The node graph of ruamel.yaml; None for a file without a document."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    try:
        return yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        place = Place(file, line + 1 + lines_before, (mark.column if mark else 0) + 1 + columns_before)
        raise SpecError(f"not valid YAML: {_problem(error)}", where=str(place), fix=_mend(text, line)) from None
    except ReaderError as error:
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1 + lines_before, error.position - before.rfind("\n") + columns_before)
        what = f"character {error.character!r} is not allowed in YAML"
        raise SpecError(what, where=str(place), fix="this does not look like a text file") from None
    except (YAMLError, ValueError, IndexError, AttributeError, KeyError) as error:
        # ruamel.yaml answers some malformed input with whatever exception its scanner stumbled over
        raise SpecError(f"not valid YAML: {' '.join(str(error).split())[:200]}", where=file) from None


def _problem(error: Any) -> str:
    """What ruamel.yaml says in one line: `while parsing a block mapping, expected ...`."""
    if "single document" in str(error.context or error.problem or ""):
        return "more than one document"
    parts = [str(part).splitlines()[0] for part in (error.context, error.problem) if part]
    return ", ".join(parts) or "cannot be read"


def _mend(text: str, line: int) -> str:
    lines = text.splitlines()
    shown = lines[line] if line < len(lines) else ""
    if "\t" in shown[: len(shown) - len(shown.lstrip())] or shown.lstrip(" ").startswith("\t"):
        return "indent with spaces: YAML does not allow tabs"
    if shown.startswith("---") and line > 0:
        return "one file describes one function: remove everything from this line on"
    return "look at the indentation, and put text that holds ': ' or ' #' in quotes"


class _Converter:
    """Turns ruamel.yaml's node graph into our tree: follows aliases and merge keys, within bounds."""

    def __init__(self, file: str, lines_before: int, columns_before: int) -> None:
        self.file, self.lines_before, self.columns_before = file, lines_before, columns_before
        self.made = 0
        self.open: set[int] = set()  # nodes we are inside of: meeting one again is an alias to itself

    def place(self, node: Any) -> Place:
        mark = node.start_mark
        return Place(self.file, mark.line + 1 + self.lines_before, mark.column + 1 + self.columns_before)

    def refuse(self, what: str, node: Any, fix: str = "") -> SpecError:
        return SpecError(what, where=str(self.place(node)), fix=fix)

    def convert(self, node: Any) -> Node:
        if node is None:
            return Node(None, Place(self.file, 1 + self.lines_before, 1 + self.columns_before))
        self.made += 1
        if self.made > MOST_VALUES:
            raise self.refuse("too many values", node, f"at most {MOST_VALUES} are read, aliases followed")
        if str(node.tag) not in _KNOWN_TAGS:
            raise self.refuse(f"the tag {_shown_tag(node.tag)} is not supported", node, "remove it")
        if isinstance(node.value, str):
            return self.scalar(node)
        if id(node) in self.open:
            raise self.refuse("an alias refers to what it is part of", node, "write the value out")
        if len(self.open) >= DEEPEST:
            raise self.refuse("nested too deeply", node, f"at most {DEEPEST} levels are read")
        self.open.add(id(node))
        try:
            is_mapping = str(node.tag).endswith(":map")
            value: Any = self.mapping(node) if is_mapping else [self.convert(item) for item in node.value]
        finally:
            self.open.discard(id(node))
        return Node(value, self.place(node))

    def mapping(self, node: Any) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if str(key.tag).endswith(":merge") and key.style is None:
                for name, entry in self.merge(value):
                    merged.setdefault(name, entry)
                continue
            name = self.key(key)
            if name in own:
                raise self.refuse(f"key {name!r} is given twice", key, f"the first is on line {own[name].place.line}")
            own[name] = Entry(self.place(key), self.convert(value))
        return own | {name: entry for name, entry in merged.items() if name not in own}

    def merge(self, node: Any) -> Iterator[tuple[str, Entry]]:
        """What `<<:` brings: the keys of one mapping, or of each in a list, the first one winning."""
        for source in node.value if str(node.tag).endswith(":seq") else [node]:
            if not str(source.tag).endswith(":map"):
                raise self.refuse("'<<' needs a mapping, or a list of them", source)
            yield from self.convert(source).entries.items()

    def key(self, node: Any) -> str:
        if not isinstance(node.value, str):
            raise self.refuse("a key must be text", node, "put it in quotes if it begins with [ or {")
        return _joined(node.value)

    def scalar(self, node: Any) -> Node:
        text, kind = _joined(node.value), str(node.tag).removeprefix(_TAG)
        try:
            value = _scalar(text, kind)
        except (ValueError, OverflowError):
            raise self.refuse(f"not a number that can be read: {text[:40]}", node, "put it in quotes") from None
        return Node(value, self.place(node), text, plain=node.style is None)


def _shown_tag(tag: Any) -> str:
    return str(tag).replace(_TAG, "!!")


def _joined(text: str) -> str:
    r"""Two escapes such as "\ud83d\ude00" are one character in JSON; ruamel.yaml leaves them apart."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _scalar(text: str, kind: str) -> Any:
    if kind == "int":
        digits = text.replace("_", "").lower()
        base = {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2], 10)
        number = int(digits, base)
        if not -(2**63) <= number < 2**64:
            raise OverflowError(text)
        return number
    if kind == "float":
        number_text = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
        decimal = float(number_text)
        if not math.isfinite(decimal):
            raise OverflowError(text)
        return decimal
    if kind == "bool":
        return text.lower() in ("true", "yes", "on", "y")
    return None if kind == "null" else text
