"""What can only be judged, or filled in, when the whole function is known: runtime, handler, names, default trigger.

Flow: `agent.model.decode` -> Function -> [complete] -> Function that the rest of the code trusts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from agent.model.embedded import embedded_problem
from agent.model.errors import SpecError
from agent.model.findings import Findings, Place
from agent.model.language import EXTENSIONS, extension_of, full_handler, handler_problem, language_of, runtime_problem
from agent.model.names import FUNCTION_RULE, RESERVED, is_function_name
from agent.model.promises import delivery_problems
from agent.model.registry import binding_kind, binding_kinds, trigger_kind
from agent.model.runtime import languages
from agent.model.source import source_files
from agent.model.spec import Binding, EnvironmentVariable, Function, FunctionSpec, TriggerSpec
from agent.model.triggers import DEFAULT_HTTP


@dataclass(slots=True)
class Code:
    """Where the code is: in a folder, in one file of it, or (neither) inside the specification or not known."""

    folder: Path | None = None
    file: Path | None = None


@dataclass(slots=True)
class Completion:
    """One function being completed; `places` tells where each key of it stands."""

    findings: Findings
    places: dict[str, Place]
    root: Place
    code: Code

    def place(self, key: str) -> Place:
        return self.places.get(key, self.root)

    def error(self, what: str, key: str, fix: str = "") -> None:
        """Found, unless the key could not even be read: then what is missing is no news."""
        if not any(item.key.startswith(key) for item in self.findings.of("error")):
            self.findings.error(what, self.place(key), key, fix)

    def complete(self, function: Function) -> Function:
        """The function with its defaults filled in. What is wrong with it is among the findings."""
        self._check_name(function.metadata.name)
        spec = self._with_runtime(function.spec)
        spec = self._with_handler(spec)
        spec = self._with_env(spec)
        spec = self._with_bindings(spec)
        self._check_build(spec)
        self._check_limits(spec)
        self._check_triggers(spec)
        return replace(function, spec=self._with_default_http(spec))

    def _check_name(self, name: str) -> None:
        if name in RESERVED:
            self.error(f"the name {name!r} is reserved", "metadata.name", "choose another")
        elif not is_function_name(name):
            self.error(f"{name[:80]!r} cannot name a function", "metadata.name", f"use {FUNCTION_RULE}")

    def _with_runtime(self, spec: FunctionSpec) -> FunctionSpec:
        runtime = spec.runtime or self._detected_language(spec)
        known = ", ".join(languages())
        if not runtime:
            self.error("the runtime is not given", "spec.runtime", f"write one of {known}")
        elif language_of(runtime).replace("-", "_") not in languages():
            self.error(f"no runtime {runtime!r}", "spec.runtime", f"there are {known}")
        elif problem := runtime_problem(runtime):
            self.error(problem, "spec.runtime", "write for example python:3.11")
        return replace(spec, runtime=runtime)

    def _detected_language(self, spec: FunctionSpec) -> str:
        """By the extension of the one source file, or of the file the handler names."""
        if self.code.file is not None:
            return EXTENSIONS.get(self.code.file.suffix.lower(), "")
        if self.code.folder is None:
            return ""
        files = source_files(self.code.folder)
        module = spec.handler.partition(":")[0]
        named = [item for item in files if module in (item.name, item.stem)]
        written_in = {EXTENSIONS[item.suffix.lower()] for item in named or files}
        return written_in.pop() if len(written_in) == 1 else ""

    def _with_handler(self, spec: FunctionSpec) -> FunctionSpec:
        language = language_of(spec.runtime)
        handler = full_handler(spec.handler, language, self._code_file(language, spec))
        if not handler and language and language != "golang":
            self.error("the handler is not given", "spec.handler", "write module:function, for example main:handler")
        elif problem := handler_problem(handler, language) if handler else "":
            self.error(problem, "spec.handler", "write for example main:handler, for the function of main.py")
        elif language == "python":
            self._look_for_module(handler.partition(":")[0])
        return replace(spec, handler=handler)

    def _code_file(self, language: str, spec: FunctionSpec) -> str:
        if self.code.file is not None:
            return self.code.file.name
        if spec.build.function_source_code:
            return f"handler{extension_of(language)}"
        files = source_files(self.code.folder, language) if self.code.folder and language else []
        return files[0].name if len(files) == 1 else ""

    def _look_for_module(self, module: str) -> None:
        """A warning only: the module may be installed instead of lying in the folder."""
        folder, first = self.code.folder, module.partition(".")[0]
        if folder is None or not folder.is_dir() or (folder / f"{first}.py").exists() or (folder / first).is_dir():
            return
        there = ", ".join(item.name for item in source_files(folder, "python")[:10]) or "no Python file"
        what = f"{first}.py is not in {folder}"
        self.findings.warning(what, self.place("spec.handler"), "spec.handler", f"there: {there}")

    def _with_env(self, spec: FunctionSpec) -> FunctionSpec:
        """The last of several entries with one name wins, as it does in a container."""
        by_name: dict[str, EnvironmentVariable] = {}
        for index, item in enumerate(spec.env):
            key = f"spec.env[{index}].name"
            if "=" in item.name or "\0" in item.name + item.value:
                self.error("not legal in an environment", key, "a name holds no '=', nothing holds a zero byte")
            if item.name in by_name:
                fix = "the last one wins; remove the others"
                self.findings.warning(f"{item.name} is given more than once", self.place(key), key, fix)
            by_name[item.name] = item
        return replace(spec, env=list(by_name.values()))

    def _with_bindings(self, spec: FunctionSpec) -> FunctionSpec:
        """Both spellings together, name and kind filled in. One of nuclio's that we lack is left out with a warning."""
        known = {name.lower() for name in binding_kinds()}
        found: dict[str, Binding] = {}
        given = [("bindings", name, item) for name, item in spec.bindings.items()]
        given += [("dataBindings", name, item) for name, item in spec.data_bindings.items()]
        for under, name, item in given:
            key, kind = f"spec.{under}.{name}", item.kind or item.class_
            if under == "dataBindings" and kind.lower() not in known:
                self.findings.warning(
                    f"data bindings of kind {kind!r} are not supported", self.place(key), key, "ignored"
                )
            elif name in found or name in spec.triggers:
                self.error(f"{name!r} is a trigger or binding already", key, "choose another name")
            else:
                found[name] = replace(item, name=name, kind=kind)
                self._check_binding(found[name], key)
        return replace(spec, bindings=found, data_bindings={})

    def _check_binding(self, item: Binding, key: str) -> None:
        try:
            binding_kind(item.kind).check(item)
        except SpecError as error:
            self.error(error.what, f"{key}.kind", error.fix)
        except ValueError as error:
            self.error(str(error), key)

    def _check_build(self, spec: FunctionSpec) -> None:
        key, kind = "spec.build.codeEntryType", spec.build.code_entry_type
        if kind == "image":
            self.error("code in a container image cannot run here", key, "give the code as a folder or file")
        elif spec.build.function_source_code:
            problem = embedded_problem(spec)
            if problem:
                self.error(problem.what, f"spec.{problem.where}", problem.fix)
        elif kind not in ("", "sourceCode"):
            self.error(f"code from {kind!r} is not supported yet", key, "fetch it, and give its folder as build.path")

    def _check_limits(self, spec: FunctionSpec) -> None:
        if spec.event_timeout is not None and spec.event_timeout <= 0:
            self.error("must be longer than nothing", "spec.eventTimeout", 'write for example "5s", or remove it')
        if spec.ring_bytes & (spec.ring_bytes - 1):
            near = 1 << (spec.ring_bytes.bit_length() - 1)
            self.error(f"{spec.ring_bytes} is not a power of two", "spec.ringBytes", f"write {near} or {2 * near}")
        self._check_amounts(spec)

    def _check_amounts(self, spec: FunctionSpec) -> None:
        """Nothing can run with nothing."""
        limits, own, recycle = spec.resources.limits, spec.limits, spec.recycle
        for key, given, value in (
            ("resources.limits.memory", limits.memory, limits.memory_bytes),
            ("resources.limits.cpu", limits.cpu, limits.cores),
            ("limits.fileSize", own.file_size, own.file_bytes),
            ("limits.cpuTime", own.cpu_time, own.cpu_time),
            ("recycle.age", recycle.age, recycle.age),
            ("recycle.memory", recycle.memory, recycle.memory_bytes),
        ):
            if given is not None and (value or 0) <= 0:
                self.error("must be more than nothing", f"spec.{key}", "write more, or remove it")
        if limits.memory_bytes and recycle.memory_bytes >= limits.memory_bytes:
            what = "a worker is ended by its memory limit before it can be recycled"
            self.findings.warning(
                what,
                self.place("spec.recycle.memory"),
                "spec.recycle.memory",
                "write less than resources.limits.memory",
            )

    def _check_triggers(self, spec: FunctionSpec) -> None:
        http = [name for name, item in spec.triggers.items() if item.kind == "http"]
        for name in http[1:]:
            what = f"a function has one http trigger, and {http[0]!r} is there already"
            self.error(what, f"spec.triggers.{name}", "remove one")
        for name, item in spec.triggers.items():
            self._check_trigger(name, item, spec)

    def _check_trigger(self, name: str, item: TriggerSpec, spec: FunctionSpec) -> None:
        key = f"spec.triggers.{name}"
        if item.batch.enabled and item.kind != "http":
            what = f"batching is only supported for http triggers, not {item.kind}"
            self.error(what, f"{key}.batch", "remove batch")
        elif item.batch.enabled and language_of(spec.runtime) != "python":
            self.error("batching is only supported for Python functions", f"{key}.batch", "remove batch")
        for problem in delivery_problems(item):
            self.error(problem.what, f"{key}.{problem.key}", problem.fix)
        others = [other for other, one in spec.triggers.items() if other != name and not one.shares_workers_of]
        if item.shares_workers_of and item.shares_workers_of not in others:
            fix = f"name one of {', '.join(others)}" if others else "remove this key"
            what = f"{item.shares_workers_of!r} is no other trigger with workers of its own"
            self.error(what, f"{key}.sharesWorkersOf", fix)

    def _with_default_http(self, spec: FunctionSpec) -> FunctionSpec:
        """Every function can be called over HTTP unless it says no. The added trigger costs no worker of its own."""
        if spec.disable_default_http_trigger or any(item.kind == "http" for item in spec.triggers.values()):
            return spec
        if self.findings.of("error"):
            return spec  # perhaps the http trigger is what could not be read
        shares = next((name for name, item in spec.triggers.items() if not item.disabled), "")
        shares = spec.triggers[shares].shares_workers_of or shares if shares else ""
        added = trigger_kind("http").spec(name=DEFAULT_HTTP, kind="http", shares_workers_of=shares)
        return replace(spec, triggers={**spec.triggers, DEFAULT_HTTP: added})
