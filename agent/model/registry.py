"""Finds plug-ins by folder name: `agent.triggers.<kind>.trigger`, `bindings.<kind>.binding`,
`runtimes.<language>.runtime`.

There is no list to edit, and a kind that no spec names is never imported: it costs no memory and needs no library.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.model.errors import SpecError
from agent.model.outlet import Outlet
from agent.model.sink import Sink
from agent.model.spec import Binding, TriggerSpec

S = TypeVar("S", bound=TriggerSpec)
Run = Callable[[Any, Sink], Awaitable[None]]

KIND_ALIASES = {"rabbitmq": "rabbit-mq", "kafka-cluster": "kafka"}
"""Other spellings that nuclio accepts, in lower case."""

KINDS_OF_NUCLIO = frozenset(
    ("http", "cron", "kickstart", "mqtt", "iotcoremqtt", "nats", "rabbit-mq", "kafka", "kinesis")
) | {"v3iostream", "eventhub", "pubsub", "v3ioitempoller"}
"""What nuclio knows, in lower case: such a kind without a folder here is "not supported yet", not a typing error."""


@dataclass(frozen=True, slots=True)
class TriggerKind:
    """A registered trigger: its name in specs, the spec its keys are checked against, its coroutine."""

    name: str
    spec: type[TriggerSpec]
    run: Run


_triggers: dict[type[TriggerSpec], TriggerKind] = {}


def trigger(spec: type[S]) -> Callable[[Callable[[S, Sink], Awaitable[None]]], Callable[[S, Sink], Awaitable[None]]]:
    """Register the decorated coroutine function as the trigger whose keys are `spec`."""

    def register(run: Callable[[S, Sink], Awaitable[None]]) -> Callable[[S, Sink], Awaitable[None]]:
        name = run.__module__.rsplit(".", 2)[-2]
        _triggers[spec] = TriggerKind(name, spec, run)
        return run

    return register


def folder_of(kind: str) -> str:
    """The folder a kind lives in: lower case, dashes as underscores (`rabbit-mq` -> `rabbit_mq`)."""
    name = kind.lower()
    return KIND_ALIASES.get(name, name).replace("-", "_")


def trigger_kinds() -> list[str]:
    """Every kind there is a folder for, without importing any."""
    package = importlib.import_module("agent.triggers")
    return sorted(item.name.replace("_", "-") for item in pkgutil.iter_modules(package.__path__) if item.ispkg)


def trigger_kind(kind: str) -> TriggerKind:
    """Import and return the trigger of that kind. Raises SpecError when it or its library is missing."""
    folder = folder_of(kind)
    module_name = f"agent.triggers.{folder}.trigger"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            what = "triggers of kind {!r} are not supported yet" if _of_nuclio(kind) else "no trigger of kind {!r}"
            raise SpecError(what.format(kind), fix=f"known kinds: {', '.join(trigger_kinds())}") from error
        raise SpecError(
            f"trigger kind {kind!r} needs the Python package {error.name!r}",
            fix=f"pip install 'headrace[{folder}]'",
        ) from error
    return next(item for item in _triggers.values() if item.run.__module__ == module.__name__)


def _of_nuclio(kind: str) -> bool:
    name = kind.lower()
    return KIND_ALIASES.get(name, name) in KINDS_OF_NUCLIO


Deliver = Callable[[Binding | TriggerSpec, Outlet], Awaitable[None]]
Check = Callable[[Binding], None]


@dataclass(frozen=True, slots=True)
class BindingKind:
    """A registered binding. `check` raises ValueError, its text beginning with the key, for what cannot be used."""

    name: str
    check: Check
    deliver: Deliver


_bindings: dict[str, BindingKind] = {}


def binding(check: Check) -> Callable[[Deliver], Deliver]:
    """Register the decorated coroutine function as what delivers for bindings of its folder's kind."""

    def register(deliver: Deliver) -> Deliver:
        name = deliver.__module__.rsplit(".", 2)[-2]
        _bindings[name] = BindingKind(name, check, deliver)
        return deliver

    return register


def binding_kinds() -> list[str]:
    """Every kind of binding there is a folder for."""
    package = importlib.import_module("bindings")
    return sorted(item.name.replace("_", "-") for item in pkgutil.iter_modules(package.__path__) if item.ispkg)


def binding_kind(kind: str) -> BindingKind:
    """Import and return the binding of that kind. Raises SpecError when it or its library is missing."""
    folder = folder_of(kind)
    if folder.replace("_", "-") not in binding_kinds():
        raise SpecError(f"no binding of kind {kind!r}", fix=f"known kinds: {', '.join(binding_kinds())}")
    try:
        importlib.import_module(f"bindings.{folder}.binding")
    except ModuleNotFoundError as error:
        raise SpecError(
            f"binding kind {kind!r} needs the Python package {error.name!r}", fix=f"pip install 'headrace[{folder}]'"
        ) from error
    return _bindings[folder]
