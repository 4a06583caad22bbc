"""The agent's own configuration: `agent.yaml`, the environment and the command line, made into frozen values.

Precedence, lowest first: defaults here, the file, `HEADRACE__SECTION__KEY` in the environment, options of the command.
Promise: usable values, or one SpecError that says which file and line, or which variable, is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from agent.model.decode import FAILED, Decoder
from agent.model.errors import SpecError
from agent.model.findings import Finding, Findings, Place
from agent.model.positions import Entry, Node, from_plain, parse
from agent.model.spec import Duration, Port, Spec

PREFIX = "HEADRACE__"
LARGEST_FILE = 1 << 20


class Paths(Spec, frozen=True, kw_only=True):
    """Empty: /etc/headrace/functions.d, /var/lib/headrace, /run/headrace for root, the XDG folders for others."""

    functions: str = ""
    state: str = ""
    run: str = ""


class Admin(Spec, frozen=True, kw_only=True):
    """Health, metrics and statistics. Port 0 picks one; the address is in `<run-dir>/admin.json`."""

    host: str = "127.0.0.1"
    port: Port = 8070
    show_results: bool = False  # /statistics shows how the last reply of each trigger's function begins


class Supervision(Spec, frozen=True, kw_only=True):
    """How a processor that ends by itself is started again."""

    restart_delay: Duration = Duration(0.1)  # of the first restart; doubles, jittered
    restart_delay_max: Duration = Duration(30.0)
    stable_after: Duration = Duration(10.0)  # serving this long clears the count of failures
    crash_limit: Annotated[int, Meta(ge=1, le=1000)] = 8  # failures in a row that park a function
    parked_retry: Duration = Duration(300.0)  # between attempts while it is parked
    drain_margin: Duration = Duration(2.0)  # added to workerTerminationTimeout, and between SIGTERM and SIGKILL
    safe_mode_starts: Annotated[int, Meta(ge=0, le=1000)] = 5  # so many starts of the agent within ... 0: never
    safe_mode_within: Duration = Duration(60.0)  # ... this time, none of them ended in order, and it starts no function
    nursery: bool = True  # fork processors and Python workers from small parents: quicker, and memory is shared
    processor_command: tuple[str, ...] = ()  # what starts a processor instead of our own program; DIR is appended


class Dropins(Spec, frozen=True, kw_only=True):
    """How the functions folder is watched."""

    settle: Duration = Duration(0.04)  # quiet time before a change is looked at
    ignore: tuple[str, ...] = ()  # names inside functions' folders that are not code, such as "data" or "*.csv"


class Logging(Spec, frozen=True, kw_only=True):
    """The agent's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Configuration(Spec, frozen=True, kw_only=True):
    """All sections."""

    paths: Paths = Paths()
    admin: Admin = Admin()
    supervisor: Supervision = Supervision()
    dropins: Dropins = Dropins()
    logging: Logging = Logging()


def load_configuration(
    file: Path | None, environment: Mapping[str, str], command: Mapping[str, Any]
) -> tuple[Configuration, list[Finding]]:
    """The configuration and the warnings about it. `command` has the shape of the file. Raises SpecError."""
    findings = Findings()
    where = str(file) if file else "defaults"
    tree = _read(file) if file else Node({}, Place(where))
    if tree.value is None:
        tree = Node({}, tree.place)
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX):
            tree = _with_variable(tree, name, text)
    tree = _laid_over(tree, from_plain(dict(command), "command line"))
    configuration = Decoder(findings).struct(tree, Configuration, "")
    findings.raise_errors()
    if configuration is FAILED:
        raise SpecError("the configuration cannot be read", where=where)
    return _with_folders(configuration), findings.of("warning")


def _read(file: Path) -> Node:
    try:
        with file.open("rb") as stream:
            return parse(stream.read(LARGEST_FILE + 1), str(file))
    except OSError as error:
        raise SpecError(
            f"the configuration cannot be read: {error.strerror}", where=str(file), fix="give another with --config"
        ) from error


def _with_variable(tree: Node, name: str, text: str) -> Node:
    """`HEADRACE__ADMIN__PORT=0` is `admin: {port: 0}`; underscores inside a key do not count."""
    keys = [key.replace("_", "") for key in name.removeprefix(PREFIX).split("__")]
    place = Place(f"environment variable {name}")
    node = parse(text.encode(), place.file) if text.strip() else Node("", place)
    node = Node(node.value, place, node.text, node.plain)
    for key in reversed(keys):
        node = Node({key.lower(): Entry(place, node)}, place)
    return _laid_over(tree, node)


def _laid_over(base: Node, over: Node) -> Node:
    """Mappings are merged, everything else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    entries = dict(base.entries)
    for name, entry in over.entries.items():
        same = next((key for key in entries if key.lower() == name.lower()), name)
        node = _laid_over(entries[same].node, entry.node) if same in entries else entry.node
        entries[same] = Entry(entry.place, node)
    return Node(entries, base.place)


def _with_folders(given: Configuration) -> Configuration:
    functions, state, run = _default_folders()
    paths = Paths(
        functions=_absolute(given.paths.functions or functions),
        state=_absolute(given.paths.state or state),
        run=_absolute(given.paths.run or run),
    )
    return Configuration(
        paths=paths, admin=given.admin, supervisor=given.supervisor, dropins=given.dropins, logging=given.logging
    )


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _default_folders() -> tuple[str, str, str]:
    if os.geteuid() == 0:
        return "/etc/headrace/functions.d", "/var/lib/headrace", "/run/headrace"
    home = Path.home()
    configuration = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    state = os.environ.get("XDG_STATE_HOME") or home / ".local/state"
    run = os.environ.get("XDG_RUNTIME_DIR") or shared_place()
    return f"{configuration}/headrace/functions.d", f"{state}/headrace", f"{run}/headrace"


def shared_place() -> Path:
    """Where a user without a runtime directory has the run folder: everybody may write beside it, so it is checked."""
    return Path(f"/tmp/headrace-{os.geteuid()}")


def default_file() -> Path | None:
    """`agent.yaml` beside the default functions folder, where there is one."""
    file = Path(_default_folders()[0]).parent / "agent.yaml"
    return file if file.is_file() else None
