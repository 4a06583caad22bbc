"""The one way from what users wrote to frozen specs that the rest of the code trusts.

Flow: path -> `source` finds specification and code -> `positions` reads -> `merge` lays overrides over it ->
`decode` checks every key -> `complete` fills in runtime, handler and default trigger -> Function.
Promise: a usable Function, or one SpecError that tells all that is wrong, with places; never anything else. Opens no
socket and no device. Precedence: default < inline block < file < overrides (environment, then command line).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.model.complete import Code, Completion
from agent.model.decode import FAILED, Decoder
from agent.model.embedded import decode_source, embedded_source
from agent.model.errors import SpecError
from agent.model.findings import Finding, Findings, Place
from agent.model.generated import dump_processor_yaml, load_generated
from agent.model.inline import inline_configuration
from agent.model.language import COMMENT_MARKS, extension_of, language_of
from agent.model.merge import merge
from agent.model.names import legal_name
from agent.model.positions import LARGEST_FILE, Entry, Node, from_plain, parse
from agent.model.restart import decode_platform
from agent.model.source import Source, code_at, locate, read
from agent.model.spec import Function
from agent.model.triggers import decode_triggers

__all__ = ["Loaded", "dump_processor_yaml", "embedded_source", "load_function", "load_processor", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A function as read. `warnings` deserve a line in the log; `notes` tell of keys that have no effect here.

    `code_dir` is the folder with the code, None when the code is inside the specification (`embedded_source`) or
    not known. `code_file` is set where only that file of the folder counts. `source` is the path that was given.
    """

    function: Function
    source: Path
    code_dir: Path | None = None
    code_file: Path | None = None
    warnings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def load_function(path: Path, *, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read the function at `path`: a folder, a specification or a source file.

    `overrides` has the shape of a function.yaml (`{"spec": {"env": [{"name": "A", "value": "1"}]}}`) and wins over
    it. Raises SpecError, in which several problems are told at once.
    """
    source = locate(path)
    file = str(source.config or source.code)
    tree = parse(read(source.config, LARGEST_FILE), file) if source.config else None
    return _load(tree, source, file, overrides)


def load_text(text: str | bytes, where: str, *, name: str = "", overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read a specification that is not a file, such as a pushed one. `name` is used where it has none."""
    data = text.encode() if isinstance(text, str) else text
    tree = parse(data, where)
    return _load(tree, None, where, overrides, name)


def load_processor(path: Path) -> Function:
    """The function of a `processor.yaml`, or of the folder that holds one. Raises SpecError."""
    return load_generated(path) or load_function(path).function


def _load(
    tree: Node | None, source: Source | None, file: str, overrides: Mapping[str, Any] | None, name: str = ""
) -> Loaded:
    findings = Findings()
    root = Place(file, 1, 1) if tree else Place(file)
    tree = _mapping(tree or Node({}, root), file)
    code = _code(tree, source, findings)
    tree = merge(_inline(tree, code, findings, file), tree)
    if overrides:
        tree = merge(tree, from_plain(dict(overrides), "overrides"))
    tree = _with_envelope(tree, source, name, findings)
    decoder = Decoder(findings, {"spec.triggers": decode_triggers, "spec.platform": decode_platform})
    function = decoder.struct(tree, Function, "")
    if function is not FAILED:
        function = Completion(findings, decoder.places, root, code).complete(function)
    findings.raise_errors()
    return Loaded(
        function,
        source.path if source else Path(file),
        code.folder,
        code.file,
        findings.of("warning"),
        findings.of("info"),
    )


def _mapping(tree: Node, file: str) -> Node:
    if isinstance(tree.value, dict):
        return tree
    what = "the file is empty" if tree.value is None else "the file holds no mapping at its top"
    raise SpecError(what, where=file, fix="a function has the keys `metadata:` and `spec:`")


def _code(tree: Node, source: Source | None, findings: Findings) -> Code:
    """Where the code is: inside the specification, at `build.path`, or where the specification is."""
    if source is None or _text_at(tree, "spec", "build", "functionSourceCode"):
        return Code()
    build_path = _text_at(tree, "spec", "build", "path")
    if not build_path or source.code is not None:
        return Code(source.folder, source.code)
    try:
        found = code_at(build_path, source.folder)
    except SpecError as error:
        node = _at(tree, "spec", "build", "path") or tree
        findings.error(error.what, node.place, "spec.build.path", error.fix)
        return Code()
    return Code(found, None) if found.is_dir() else Code(found.parent, found)


def _inline(tree: Node, code: Code, findings: Findings, file: str) -> Node:
    """The inline block of a function whose code is a single file, else an empty mapping."""
    block = None
    embedded = _text_at(tree, "spec", "build", "functionSourceCode")
    if code.file is not None and code.file.suffix.lower() in COMMENT_MARKS:
        mark = COMMENT_MARKS[code.file.suffix.lower()]
        block = inline_configuration(read(code.file, LARGEST_FILE), mark, str(code.file), findings)
    elif embedded:
        mark = COMMENT_MARKS.get(extension_of(language_of(_text_at(tree, "spec", "runtime"))), "#")
        block = inline_configuration(_lenient(embedded), mark, f"{file}: functionSourceCode", findings)
    return _mapping(block, str(block.place)) if block else Node({}, tree.place)


def _lenient(text: str) -> bytes:
    """Embedded code, or nothing where it is not base64, which is told later with its place."""
    try:
        return decode_source(text)
    except SpecError:
        return b""


def _with_envelope(tree: Node, source: Source | None, name: str, findings: Findings) -> Node:
    """`spec` may be absent, and so may `metadata.name`: then the function is called after its file or folder."""
    added: dict[str, Any] = {key: {} for key in ("metadata", "spec") if _is_null(tree.get(key))}
    metadata = tree.get("metadata")
    can_hold_name = metadata is None or metadata.value is None or isinstance(metadata.value, dict)
    if can_hold_name and _is_null(_at(tree, "metadata", "name")) and (name or source):
        name = legal_name(name or (source.default_name if source else ""))
        added["metadata"] = {"name": name}
        if source is None or source.config is not None:
            fix = f"write metadata: {{name: {name}}}"
            findings.warning(f"not given, {name!r} is used", tree.place, "metadata.name", fix)
    extra = from_plain(added, tree.place.file)
    return merge(tree, _placed(extra, tree.place))


def _placed(node: Node, place: Place) -> Node:
    entries = {key: Entry(place, _placed(entry.node, place)) for key, entry in node.entries.items()}
    return Node(entries if isinstance(node.value, dict) else node.value, place, node.text)


def _is_null(node: Node | None) -> bool:
    return node is None or node.value is None


def _at(tree: Node, *keys: str) -> Node | None:
    node: Node | None = tree
    for key in keys:
        node = node.get(key) if node else None
    return node


def _text_at(tree: Node, *keys: str) -> str:
    node = _at(tree, *keys)
    return node.value.strip() if node and isinstance(node.value, str) else ""
