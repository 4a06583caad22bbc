"""Whether the keys about delivery fit one another and the kind of trigger.

Flow: `agent.model.complete` -> [promises] -> findings. A promise that cannot be kept is refused before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agent.model.spec import TriggerSpec


class Problem(NamedTuple):
    """`key` of the trigger that is wrong, and how to mend it."""

    key: str
    what: str
    fix: str


def delivery_problems(spec: TriggerSpec) -> Iterator[Problem]:
    """Everything that is wrong with the delivery of one trigger."""
    if spec.journal and spec.delivery == "at-most-once":
        what = "a journal keeps events until they are handled, which is at least once"
        yield Problem("journal", what, "write delivery: at-least-once, or remove journal")
    if spec.delivery == "effectively-once" and not (spec.id_from or spec.default_id_from):
        what = f"events of a {spec.kind} trigger have no id to know a repeated one by"
        yield Problem("delivery", what, "say where the id stands, for example idFrom: body:id, or use at-least-once")
    if spec.id_from and spec.delivery != "effectively-once":
        yield Problem("idFrom", "has no effect without delivery: effectively-once", "write that, or remove idFrom")
    if spec.batch.enabled and spec.order_key not in ("", "none"):
        yield Problem("orderKey", "events of a batch are handled together, not one after the other", "remove orderKey")
