"""The `@nuclio.configure` comment block: a function.yaml inside its own source file.

    # @nuclio.configure
    #
    # function.yaml:
    #   spec:
    #     triggers: ...

The block ends at the first line that does not begin with the comment mark in column 0, or at the end of the file.
Exactly one character after the mark is dropped.
"""

from __future__ import annotations

import re

from agent.model.errors import SpecError
from agent.model.findings import Findings
from agent.model.positions import Node, parse

TOP_KEY = "function.yaml"
FAILED_TO_PARSE = "Failed to parse inline configuration"
"""Tools written for nuclio look for exactly these words."""


def inline_configuration(source: bytes, mark: str, file: str, findings: Findings) -> Node | None:
    """The specification inside a source file, with positions in that file; None when there is no block."""
    lines = source.decode("utf-8", "replace").splitlines()
    start = next((index for index, line in enumerate(lines) if _opens(line, mark)), None)
    if start is None:
        return None
    body: list[str] = []
    for line in lines[start + 1 :]:
        if not line.startswith(mark):
            break
        body.append(line[len(mark) + 1 :])
    try:
        text = "\n".join(body).encode("utf-8", "replace")
        tree = parse(text, file, lines_before=start + 1, columns_before=len(mark) + 1)
    except SpecError as error:
        raise SpecError(f"{FAILED_TO_PARSE}: {error.what}", where=error.where, fix=error.fix) from None
    return _under_top_key(tree, findings)


def _opens(line: str, mark: str) -> bool:
    return re.fullmatch(rf"{re.escape(mark)}\s*@nuclio\.configure\s*", line) is not None


def _under_top_key(tree: Node, findings: Findings) -> Node | None:
    if not isinstance(tree.value, dict):
        if tree.value is not None:
            raise SpecError(
                f"{FAILED_TO_PARSE}: not a mapping", where=str(tree.place), fix=f"its first line is '{TOP_KEY}:'"
            )
        return None
    for name, entry in tree.entries.items():
        if name != TOP_KEY:
            fix = f"only '{TOP_KEY}:' is read"
            findings.warning("unknown key in the inline configuration, ignored", entry.place, name, fix)
    top = tree.entries.get(TOP_KEY)
    return top.node if top and top.node.value is not None else None
