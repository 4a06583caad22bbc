"""Lays what was given later (inline block < file < environment < command line) over what was given before.

Maps are merged, `env` is merged by name, everything else is replaced. A trigger's own key is found whether it stands
under `attributes` or beside the common keys. `default-http` in the later tree means the function's http trigger,
whatever its name is, so that a port can be given without knowing the file.
"""

from __future__ import annotations

from agent.model.positions import Entry, Node
from agent.model.triggers import DEFAULT_HTTP


def merge(base: Node, over: Node, path: tuple[str, ...] = ()) -> Node:
    """A new tree; neither argument is changed."""
    if path == ("spec", "env") and isinstance(base.value, list) and isinstance(over.value, list):
        return _merge_env(base, over)
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return base if over.value is None else over
    if path == ("spec", "triggers"):
        over = _with_http_named(base, over)
    if len(path) == 3 and path[:2] == ("spec", "triggers"):
        base, over = _side_by_side(base, over)
    entries = dict(base.entries)
    for name, entry in over.entries.items():
        at = _match(entries, name)
        if at is None:
            entries[name] = entry
        else:
            entries[at] = Entry(entry.place, merge(entries[at].node, entry.node, (*path, at.lower())))
    return Node(entries, base.place)


def _match(entries: dict[str, Entry], name: str) -> str | None:
    """The key that means the same: the same spelling first, else in another case."""
    if name in entries:
        return name
    return next((key for key in entries if key.lower() == name.lower()), None)


def _merge_env(base: Node, over: Node) -> Node:
    def name_of(item: Node) -> object:
        name = item.get("name")
        return name.value if name else id(item)

    by_name = {name_of(item): item for item in base.value}
    return Node(list((by_name | {name_of(item): item for item in over.value}).values()), over.place)


def _with_http_named(base: Node, over: Node) -> Node:
    name = _match(over.entries, DEFAULT_HTTP)
    if name is None or _match(base.entries, DEFAULT_HTTP):
        return over
    http = [key for key, entry in base.entries.items() if _is_http(entry.node)]
    if len(http) != 1 or http[0] in over.entries:
        return over
    return Node({http[0] if key == name else key: entry for key, entry in over.entries.items()}, over.place)


def _is_http(trigger: Node) -> bool:
    kind = trigger.get("kind")
    return kind is not None and str(kind.value).lower() == "http"


def _side_by_side(base: Node, over: Node) -> tuple[Node, Node]:
    """The later keys all beside the common ones, and the earlier `attributes` without what those replace."""
    later = {name: entry for name, entry in over.entries.items() if name.lower() != "attributes"}
    attributes = over.get("attributes")
    later |= attributes.entries if attributes else {}
    earlier = dict(base.entries)
    for name, entry in base.entries.items():
        if name.lower() == "attributes" and isinstance(entry.node.value, dict):
            kept = {key: item for key, item in entry.node.entries.items() if _match(later, key) is None}
            earlier[name] = Entry(entry.place, Node(kept, entry.node.place))
    return Node(earlier, base.place), Node(later, over.place)
