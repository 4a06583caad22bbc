"""Names of functions and triggers: what is legal, and how a file name becomes one."""

from __future__ import annotations

import re

LONGEST = 63
RESERVED = frozenset(["dashboard", "controller", "dlx", "scaler"])
"""Names nuclio keeps for itself; a function that bears one could not move there."""

FUNCTION_RULE = f"lower-case letters, digits and dashes, beginning and ending with a letter or digit, at most {LONGEST}"
TRIGGER_RULE = f"letters, digits, '-', '_', '.' and inner blanks, at most {LONGEST}"

_FUNCTION = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
_TRIGGER = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_. -]*[A-Za-z0-9_])?", re.ASCII)


def is_function_name(name: str) -> bool:
    return len(name) <= LONGEST and _FUNCTION.fullmatch(name) is not None


def is_trigger_name(name: str) -> bool:
    """It becomes a folder and a word in `HEADRACE_LISTEN`, so no slash, colon or comma."""
    return len(name) <= LONGEST and _TRIGGER.fullmatch(name) is not None


def legal_name(text: str) -> str:
    """The nearest legal function name: `My_Blink v2` becomes `my-blink-v2`."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower(), flags=re.ASCII).strip("-")[:LONGEST].strip("-")
    return f"{name}-function" if name in RESERVED else name or "function"
