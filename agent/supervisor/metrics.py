"""`/statistics` as Prometheus text (exposition format 0.0.4), under our names, and nuclio's where they mean the same.

Flow: Supervisor.statistics() -> [metrics] -> admin listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

STATES = ("starting", "ready", "serving", "failing", "draining", "stopped", "failed", "parked")

SUFFIX = ""
"""A label that is none: it is appended to the metric's name."""

Sample = tuple[dict[str, str], float]


def exposition(statistics: dict[str, Any]) -> str:
    """Every metric with its help and type, samples sorted as the functions are."""
    functions: dict[str, dict[str, Any]] = statistics["functions"]
    safe: list[Sample] = [({}, float("safe_mode" in statistics))]
    metrics = [("headrace_safe_mode", "gauge", "1 while the agent starts no function.", safe), *_metrics(functions)]
    return "".join(line for metric in metrics for line in _lines(*metric))


def _metrics(functions: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    yield "headrace_functions", "gauge", "Functions the agent knows.", [({}, len(functions))]
    yield (
        "headrace_function_state",
        "gauge",
        "1 for the state a function is in.",
        [
            ({"function": name, "state": state}, float(item["state"] == state))
            for name, item in functions.items()
            for state in STATES
        ],
    )
    yield (
        "headrace_function_restarts_total",
        "counter",
        "Processors that ended without being asked.",
        [({"function": name}, item["restarts"]) for name, item in functions.items()],
    )
    triggers = [
        ({"function": name, "trigger": trigger}, values)
        for name, item in functions.items()
        for trigger, values in item["triggers"].items()
    ]
    yield (
        "headrace_trigger_up",
        "gauge",
        "1 while the source of a trigger is there.",
        [(labels, float(values["up"])) for labels, values in triggers],
    )
    yield (
        "headrace_events_total",
        "counter",
        "Events by how they ended.",
        [
            ({**labels, "result": result}, values[key])
            for labels, values in triggers
            for result, key in (("success", "handled"), ("failure", "failed"))
        ],
    )
    yield (
        "headrace_trigger_counter_total",
        "counter",
        "Counters of a trigger's own, such as dropped datagrams.",
        [
            ({**labels, "counter": counter}, value)
            for labels, values in triggers
            for counter, value in sorted(values["counters"].items())
        ],
    )
    yield "headrace_event_duration_seconds", "summary", "From the trigger to the outcome.", _durations(triggers)
    yield (
        "nuclio_processor_handled_events_total",
        "counter",
        "As nuclio counts them.",
        [
            ({**_nuclio(labels, values), "result": result}, values[key])
            for labels, values in triggers
            for result, key in (("success", "handled"), ("failure", "failed"))
        ],
    )
    yield (
        "nuclio_processor_handled_events_duration_milliseconds_sum",
        "counter",
        "As nuclio counts them.",
        [(_nuclio(labels, values), round(values.get("seconds_sum", 0) * 1000)) for labels, values in triggers],
    )
    yield (
        "nuclio_processor_handled_events_duration_milliseconds_count",
        "counter",
        "As nuclio counts them.",
        [(_nuclio(labels, values), values["handled"] + values["failed"]) for labels, values in triggers],
    )


def _durations(triggers: list[tuple[dict[str, str], dict[str, Any]]]) -> Iterator[Sample]:
    for labels, values in triggers:
        yield {**labels, "quantile": "0.5"}, values["p50_us"] / 1e6
        yield {**labels, "quantile": "0.99"}, values["p99_us"] / 1e6
    for labels, values in triggers:
        yield {**labels, SUFFIX: "_sum"}, values.get("seconds_sum", 0)
        yield {**labels, SUFFIX: "_count"}, values["handled"] + values["failed"]


def _nuclio(labels: dict[str, str], values: dict[str, Any]) -> dict[str, str]:
    return {"function": labels["function"], "trigger_id": labels["trigger"], "trigger_kind": values["kind"]}


def _lines(name: str, kind: str, help_: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"
    for given, value in samples:
        labels = dict(given)
        suffix = labels.pop(SUFFIX, "")
        text = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        yield f"{name}{suffix}{{{text}}} {_number(value)}\n" if text else f"{name}{suffix} {_number(value)}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
