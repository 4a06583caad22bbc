"""What users wrote becomes frozen values; everything that is wrong is told, with its place."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import SpecError
from agent.model.load import Loaded, dump_processor_yaml, embedded_source, load_function, load_processor, load_text

HEAD = "metadata: {name: blink}\nspec:\n  runtime: python\n  handler: main:handler\n  disableDefaultHTTPTrigger: true\n"


def load(text: str, **more: Any) -> Loaded:
    return load_text(HEAD + text, "blink.yaml", **more)


def widget(keys: str) -> Any:
    """The trigger `w` of kind widget with these lines of YAML below it."""
    lines = "".join(f"      {line}\n" for line in keys.strip("\n").splitlines())
    return load(f"  triggers:\n    w:\n      kind: widget\n{lines}").function.spec.triggers["w"]


def failure(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_text(text, "blink.yaml")
    return str(caught.value)


def widget_failure(keys: str) -> str:
    with pytest.raises(SpecError) as caught:
        widget(keys)
    return str(caught.value)


def test_a_whole_function() -> None:
    loaded = load("  env:\n  - {name: A, value: b}\n  eventTimeout: 1m2.5s\n  build: {commands: [pip install x]}\n")
    spec = loaded.function.spec
    assert (loaded.function.metadata.name, spec.runtime, spec.handler) == ("blink", "python", "main:handler")
    assert [(item.name, item.value) for item in spec.env] == [("A", "b")]
    assert spec.event_timeout == 62.5
    assert spec.build.commands == ["pip install x"]
    assert loaded.warnings == [] and loaded.notes == []


def test_keys_match_in_any_case() -> None:
    loaded = load_text(
        "METADATA: {Name: blink}\nSpec: {RunTime: python, HANDLER: a:b, DisableDefaultHttpTrigger: yes}", "f"
    )
    assert loaded.function.spec.handler == "a:b"
    assert loaded.function.spec.disable_default_http_trigger is True
    assert widget("NumWorkers: 3\nattributes: {clientID: x}").num_workers == 3


def test_names_of_users_keep_their_case() -> None:
    loaded = load_text(
        "metadata: {name: a, labels: {App: x, app: y}}\nspec: {runtime: shell2, handler: x}".replace(
            "shell2", "python"
        ),
        "f",
        overrides={"spec": {"runtimeAttributes": {"jvmOptions": ["-Xmx1g"]}, "disableDefaultHTTPTrigger": True}},
    )
    assert loaded.function.metadata.labels == {"App": "x", "app": "y"}
    assert loaded.function.spec.runtime_attributes == {"jvmOptions": ["-Xmx1g"]}


@pytest.mark.parametrize("where", ["attributes: {port: 8080, clientID: c}", "port: 8080\nclientId: c"])
def test_own_keys_under_attributes_or_beside(where: str) -> None:
    assert (widget(where).port, widget(where).client_id) == (8080, "c")


def test_own_key_in_both_places() -> None:
    text = widget_failure("port: 1\nattributes:\n  PORT: 2")
    assert "blink.yaml:11:9: spec.triggers.w.attributes.PORT: key is given twice" in text
    assert "line 9" in text


def test_key_twice_in_different_case() -> None:
    assert "blink.yaml:10:7: spec.triggers.w.Port: key is given twice" in widget_failure("port: 1\nPort: 2")


def test_common_key_under_attributes_is_ignored_with_a_warning() -> None:
    loaded = load("  triggers:\n    w: {kind: widget, attributes: {numWorkers: 4}}\n")
    assert loaded.function.spec.triggers["w"].num_workers == 1
    assert "beside kind" in str(loaded.warnings[0])


@pytest.mark.parametrize(
    ("keys", "workers"),
    [
        ("maxWorkers: 4", 4),
        ("maxWorkers: 4\nnumWorkers: 2", 2),
        ("maxWorkers: 4\nnumWorkers: 0", 4),
        ("numWorkers: 0", 1),
    ],
)
def test_max_workers_is_an_old_name(keys: str, workers: int) -> None:
    assert widget(keys).num_workers == workers


def test_trigger_name_must_equal_its_key() -> None:
    assert widget("name: w").name == "w"
    assert "spec.triggers.w.name: the trigger is called 'w' above" in widget_failure("name: v")


@pytest.mark.parametrize("name", ["a/b", "a:b", "a,b", "..", '""', "x" * 64, '"a\\0b"'])
def test_trigger_names_that_could_not_be_a_folder(name: str) -> None:
    assert "cannot name a trigger" in failure(HEAD + f"  triggers:\n    {name}: {{kind: widget}}\n")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("wigdet", "no trigger of kind 'wigdet'"),
        ("kinesis", "triggers of kind 'kinesis' are not supported yet"),
        ("rabbitMq", "triggers of kind 'rabbitMq' are not supported yet"),
        ("kafka-cluster", "are not supported yet"),
        ("mqqt", "did you mean 'mqtt'"),
        ("../../etc", "expected the name of a kind"),
        ("a.b", "expected the name of a kind"),
        ("5", "expected the name of a kind, found the number 5"),
        ("''", "expected the name of a kind"),
    ],
)
def test_unknown_kinds(kind: str, says: str) -> None:
    text = failure(HEAD + f"  triggers:\n    w:\n      kind: {kind}\n")
    assert says in text
    assert "known kinds: " in text and "cron" in text
    assert "blink.yaml:8:13" in text


def test_kind_missing() -> None:
    assert "blink.yaml:7:5: spec.triggers.w: key 'kind' is missing" in failure(HEAD + "  triggers:\n    w: {}\n")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            'port: "8080"',
            'spec.triggers.w.port: expected a whole number from 0 to 65535, found the text "8080"; write 8080 without',
        ),
        ("port: 70000", "expected a whole number from 0 to 65535, found the number 70000"),
        ("port: 1.5", "found the number 1.5"),
        ("port: true", "found true"),
        ("attributes: {port: x}", "blink.yaml:9:26: spec.triggers.w.attributes.port"),
        ("interval: 10", 'expected a duration such as "10s" or "500ms", found the number 10; write "10s" for seconds'),
        ('interval: "10"', 'write "10s"'),
        ("interval: soon", 'found the text "soon"'),
        ("interval: 999999999h", "expected a duration"),
        ("color: gren", 'expected one of red, green, found the text "gren"; did you mean green?'),
        ("topics: a", "expected a list, at most 2 entries, found the text"),
        ("topics: [a, b, c]", "at most 2 entries, found 3"),
        ("subscriptions: [{qos: 1}]", "spec.triggers.w.subscriptions[0]: key 'topic' is missing"),
        (
            "subscriptions: [{topic: t, qos: 3}]",
            "spec.triggers.w.subscriptions[0].qos: expected a whole number from 0 to 2",
        ),
        ("subscriptions: [t]", "expected a mapping, found the text"),
        ("framing: {kind: lines}", "framing.kind: expected one of line, length, found the text"),
        ("framing: {}", "framing.kind: expected one of line, length, found nothing"),
        ("framing: {kind: length, bytes: 0}", "framing.bytes: expected a whole number, at least 1"),
        ("framing: 5", "found the number 5"),
        ("headers: {a: [1]}", "headers.a: expected text or a whole number or true or false, found a list"),
        ("pair: [1]", "expected a list"),
        ("ratio: x", "expected a number"),
        ("least: 6", "blink.yaml:9:14: spec.triggers.w.least: least is above 5"),
        ("disabled: 'yes'", "expected true or false"),
        ("numWorkers: -1", "expected a whole number from 1 to 100000"),
        ("numWorkers: false", "found false"),
        ("attributes: [a]", "spec.triggers.w.attributes: expected a mapping, found a list"),
        ("batch: {mode: enabled}", "did you mean enable?"),
        ("extra: {a: 99999999999999999999}", "not a number that can be read"),
        ("ratio: .inf", "not a number that can be read"),
    ],
)
def test_wrong_values(keys: str, says: str) -> None:
    assert says in widget_failure(keys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port: is taken", "blink.yaml:10:13: spec.triggers.w.port: is taken"),
        ("`clientID` is empty", "blink.yaml:8:7: spec.triggers.w.clientId: `clientID` is empty"),
        ("port.inner: wrong", "blink.yaml:10:13: spec.triggers.w.port.inner: wrong"),
        ("`port: 5` is odd", "blink.yaml:10:13: spec.triggers.w.port: `port: 5` is odd"),
        ("nothing of the kind", "blink.yaml:8:7: spec.triggers.w: nothing of the kind"),
        ("", "blink.yaml:8:7: spec.triggers.w: "),
    ],
)
def test_what_a_spec_refuses_stands_at_the_key_it_names(text: str, says: str) -> None:
    keys = f"extra: {{refuse: '{text}'}}\nport: 5"
    assert says in widget_failure(keys)


def test_wild_values_never_raise_anything_else() -> None:
    """Values of a whole function replaced, one at a time, by something they are not."""
    whole: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {
            "handler": "a:b",
            "runtime": "python",
            "env": [{"name": "A", "value": "b"}],
            "build": {"path": "x", "commands": ["y"], "functionSourceCode": "eA=="},
            "platform": {"attributes": {"restartPolicy": {"name": "no"}}},
            "eventTimeout": "1s",
            "loggerSinks": [{"level": "info"}],
            "triggers": {
                "w": {"kind": "widget", "attributes": {"framing": {"kind": "line"}, "pair": [1, "a"], "port": 5}},
                "m": {"kind": "mqtt", "url": "tcp://h", "subscriptions": [{"topic": "t", "qos": 1}]},
                "h": {"kind": "http", "batch": {"mode": "enable", "timeout": "1s"}},
            },
        },
    }
    wild = [None, True, -1, 1.5, "", "x" * 200, "\0", [], [[]], {}, {"": 1}, {"kind": {}}, {"name": []}, 2**63]

    def variants(value: Any) -> Iterator[Any]:
        yield from wild
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(pairs):
            for other in variants(inner):
                copy = value.copy()
                copy[key] = other
                yield copy

    for variant in random.Random(7).sample(list(variants(whole)), 150):
        try:
            load_text(json.dumps(variant), "f")
        except SpecError as error:
            assert str(error).startswith("f")


def test_right_values() -> None:
    spec = widget(
        "interval: 1h2m\nsubscriptions: [{TOPIC: t, qos: 2}]\nframing: {KIND: length, bytes: 2}\ncolor: green\n"
        "topics: [a, b]\nheaders: {A: 1, b: true, c: x}\nextra: {A: [1, {b: null}]}\nratio: 2\npair: [1, a]\n"
        "disabled: yes"
    )
    assert spec.interval == 3720.0
    assert (spec.subscriptions[0].topic, spec.subscriptions[0].qos) == ("t", 2)
    assert spec.framing.bytes_ == 2
    assert spec.headers == {"A": 1, "b": True, "c": "x"}
    assert spec.extra == {"A": [1, {"b": None}]}
    assert (spec.color, spec.topics, spec.ratio, spec.pair, spec.disabled) == ("green", ["a", "b"], 2.0, (1, "a"), True)


def test_null_means_not_given() -> None:
    assert widget("port:\nbatch: null\nattributes:").port == 0
    assert load("  env:\n  triggers:\n").function.spec.env == []


def test_all_problems_at_once() -> None:
    text = failure(
        "metadata: {name: Bad Name}\nspec:\n  runtime: pyton\n  handler: [a]\n  triggers:\n"
        "    w: {kind: widget, port: x}\n    v: {kind: nope}\n"
    )
    for place in ("blink.yaml:1:18", "blink.yaml:3:12", "blink.yaml:4:12", "blink.yaml:6:29", "blink.yaml:7:15"):
        assert place in text
    assert "5 errors" in text


def test_unknown_key_names_the_nearest() -> None:
    warnings = load("  evn: []\n  triggers:\n    w: {kind: widget, cleintID: x}\n").warnings
    assert str(warnings[0]) == "blink.yaml:6:3: warning: spec.evn: unknown key, ignored; did you mean 'env'?"
    assert "spec.triggers.w.cleintID" in str(warnings[1]) and "did you mean 'clientId'?" in str(warnings[1])


def test_meta_is_no_metadata() -> None:
    loaded = load_text("meta: {name: x}\n" + HEAD, "f")
    assert loaded.function.metadata.name == "blink"
    assert "did you mean 'metadata'" in str(loaded.warnings[0])


def test_key_of_spec_at_the_top() -> None:
    assert "did you mean 'spec.runtime'?" in str(load_text("runtime: python\n" + HEAD, "f").warnings[0])


def test_keys_of_kubernetes_are_notes() -> None:
    loaded = load(
        "  minReplicas: 1\n  resources: {requests: {cpu: 1}}\n"
        "  triggers:\n    w: {kind: widget, attributes: {serviceType: NodePort}}\n"
    )
    assert loaded.warnings == []
    assert [item.key for item in loaded.notes] == [
        "spec.minReplicas",
        "spec.resources.requests",
        "spec.triggers.w.attributes.serviceType",
    ]


def test_amounts_are_read_as_kubernetes_writes_them() -> None:
    loaded = load(
        "  resources: {limits: {memory: 128Mi, cpu: 500m, nvidia.com/gpu: 1}}\n"
        "  limits: {openFiles: 64, processes: 20, fileSize: 1.5k, cpuTime: 10s}\n"
        "  recycle: {events: 1000, age: 1h, memory: 64e6}\n"
        "  securityContext: {runAsUser: 1000, runAsGroup: dialout, supplementalGroups: [20, video], fsGroup: 3}\n"
    )
    assert loaded.warnings == []
    spec = loaded.function.spec
    assert (spec.resources.limits.memory_bytes, spec.resources.limits.cores) == (128 << 20, 0.5)
    assert (spec.limits.open_files, spec.limits.processes, spec.limits.file_bytes) == (64, 20, 1500)
    assert (spec.recycle.events, spec.recycle.age, spec.recycle.memory_bytes) == (1000, 3600.0, 64_000_000)
    who = spec.security_context
    assert (who.run_as_user, who.run_as_group, who.supplemental_groups) == (1000, "dialout", [20, "video"])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("resources: {limits: {memory: 12Mo}}", "spec.resources.limits.memory"),
        ("resources: {limits: {memory: 0}}", "spec.resources.limits.memory"),
        ("resources: {limits: {cpu: -1}}", "spec.resources.limits.cpu"),
        ("limits: {openFiles: 3}", "spec.limits.openFiles"),
        ("limits: {fileSize: 0Ki}", "spec.limits.fileSize"),
        ("limits: {cpuTime: 0s}", "spec.limits.cpuTime"),
        ("recycle: {age: -1s}", "spec.recycle.age"),
        ("recycle: {events: 0}", "spec.recycle.events"),
        ("securityContext: {runAsUser: -5}", "spec.securityContext.runAsUser"),
    ],
)
def test_a_limit_that_cannot_be_is_told_with_its_place(line: str, key: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(f"  {line}\n")
    assert key in str(raised.value)


def test_a_worker_that_cannot_be_recycled_before_its_limit_is_a_warning() -> None:
    loaded = load("  resources: {limits: {memory: 64Mi}}\n  recycle: {memory: 64Mi}\n")
    assert "spec.recycle.memory" in str(loaded.warnings[0])


def test_env_values_become_text() -> None:
    loaded = load(
        "  env:\n  - {name: A, value: 0755}\n  - {name: B, value: true}\n"
        "  - {name: C, value: yes}\n  - {name: D, value: 1.10}\n"
    )
    assert [item.value for item in loaded.function.spec.env] == ["0755", "true", "true", "1.10"]
    assert len(loaded.warnings) == 4


def test_env_details() -> None:
    loaded = load(
        "  env:\n  - {name: A, value: x}\n  - {name: A, value: y}\n  - {name: B, valueFrom: {secretKeyRef: {}}}\n"
    )
    assert [(item.name, item.value) for item in loaded.function.spec.env] == [("A", "y"), ("B", "")]
    assert "more than once" in str(loaded.warnings)
    assert "valueFrom" in str(loaded.warnings)
    assert "not legal in an environment" in failure(HEAD + '  env:\n  - {name: A, value: "a\\0b"}\n')
    assert "not legal in an environment" in failure(HEAD + "  env:\n  - {name: A=B, value: x}\n")
    assert "key 'name' is missing" in failure(HEAD + "  env:\n  - {value: x}\n")


@pytest.mark.parametrize("name", ["dashboard", "controller", "dlx", "scaler"])
def test_reserved_names(name: str) -> None:
    assert "is reserved" in failure(f"metadata: {{name: {name}}}\nspec: {{runtime: python, handler: a:b}}")


@pytest.mark.parametrize("name", ["Blink", "a b", "-a", "a-", "a_b", "x" * 64, "''", "a/b"])
def test_bad_names(name: str) -> None:
    assert "cannot name a function" in failure(f"metadata: {{name: {name}}}\nspec: {{runtime: python, handler: a:b}}")


def test_name_missing() -> None:
    assert "key 'name' is missing" in failure("spec: {runtime: python, handler: a:b}")
    loaded = load_text("spec: {runtime: python, handler: a:b}", "f", name="My Lamp")
    assert loaded.function.metadata.name == "my-lamp"
    assert "metadata.name" in str(loaded.warnings)


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("cobol", "there are"),
        ("python:2.7", "Python 2.7 cannot run functions"),
        ("python:", "no version"),
        ("3", "no runtime '3'"),
    ],
)
def test_bad_runtimes(runtime: str, says: str) -> None:
    text = failure(f"metadata: {{name: a}}\nspec: {{runtime: '{runtime}', handler: a:b}}")
    assert says in text and "spec.runtime" in text


@pytest.mark.parametrize("handler", ["a:b:c", "a b:c", "a/b:c", "a:", "a:b c"])
def test_bad_python_handlers(handler: str) -> None:
    assert "is not `module:function`" in failure(
        f"metadata: {{name: a}}\nspec: {{runtime: python, handler: '{handler}'}}"
    )


@pytest.mark.parametrize(
    ("given", "full"), [("main", "main:handler"), ("a.b:c.d", "a.b:c.d"), ("batch-func:h", "batch-func:h")]
)
def test_python_handlers(given: str, full: str) -> None:
    text = f"metadata: {{name: a}}\nspec: {{runtime: 'python:3.11', handler: '{given}'}}"
    assert load_text(text, "f").function.spec.handler == full


def test_other_limits() -> None:
    assert "spec.ringBytes: 100000 is not a power of two; write 65536 or 131072" in failure(
        HEAD + "  ringBytes: 100000\n"
    )
    assert "spec.eventTimeout: must be longer" in failure(HEAD + "  eventTimeout: 0s\n")
    assert "container image" in failure(HEAD + "  build: {codeEntryType: image}\n")
    assert "code from 'git' is not supported yet" in failure(HEAD + "  build: {codeEntryType: git}\n")


def test_default_http_shares_workers() -> None:
    text = HEAD.replace("  disableDefaultHTTPTrigger: true\n", "")
    alone = load_text(text, "f").function.spec.triggers
    assert list(alone) == ["default-http"]
    assert (alone["default-http"].kind, alone["default-http"].shares_workers_of) == ("http", "")
    both = load_text(
        text + "  triggers:\n    v: {kind: widget, disabled: true}\n    w: {kind: widget}\n", "f"
    ).function.spec.triggers
    assert list(both) == ["v", "w", "default-http"]
    assert both["default-http"].shares_workers_of == "w"
    assert list(load("  triggers:\n    w: {kind: widget}\n").function.spec.triggers) == ["w"]


def test_one_http_trigger_only() -> None:
    text = failure(HEAD + "  triggers:\n    a: {kind: http}\n    b: {kind: HTTP}\n")
    assert "blink.yaml:8:5: spec.triggers.b: a function has one http trigger, and 'a' is there already" in text


def test_shares_workers_of() -> None:
    assert "is no other trigger" in widget_failure("sharesWorkersOf: w")
    assert "is no other trigger" in widget_failure("sharesWorkersOf: x")


def test_batch_needs_http_and_python() -> None:
    assert "batching is only supported for http triggers, not widget" in widget_failure("batch: {mode: enable}")
    loaded = load("  triggers:\n    a: {kind: http, batch: {mode: enable, batchSize: 3, timeout: 50ms}}\n")
    batch = loaded.function.spec.triggers["a"].batch
    assert (batch.enabled, batch.batch_size, batch.timeout) == (True, 3, 0.05)


def test_restart_policy() -> None:
    loaded = load("  platform: {attributes: {restartPolicy: {name: on-failure, maximumRetryCount: 3}}}\n")
    policy = loaded.function.spec.restart_policy
    assert (policy.name, policy.maximum_retry_count) == ("on-failure", 3)
    assert load("").function.spec.restart_policy.name == "always"
    assert "restartPolicy.name: expected one of always" in failure(
        HEAD + "  platform: {attributes: {restartPolicy: {name: never}}}\n"
    )


def test_overrides_win() -> None:
    loaded = load(
        "  env:\n  - {name: A, value: file}\n  - {name: B, value: file}\n"
        "  triggers:\n    w: {kind: widget, attributes: {port: 1, clientID: c}}\n",
        overrides={
            "spec": {"Handler": "x:y", "env": [{"name": "A", "value": "command"}], "triggers": {"w": {"PORT": 2}}}
        },
    )
    spec = loaded.function.spec
    assert spec.handler == "x:y"
    assert [(item.name, item.value) for item in spec.env] == [("A", "command"), ("B", "file")]
    assert (spec.triggers["w"].port, spec.triggers["w"].client_id) == (2, "c")  # type: ignore[attr-defined]


def test_override_of_the_http_trigger_whatever_its_name() -> None:
    over = {"spec": {"triggers": {"default-http": {"kind": "http", "numWorkers": 3}}}}
    named = load("  triggers:\n    web: {kind: http}\n", overrides=over).function.spec.triggers
    assert [(name, item.num_workers) for name, item in named.items()] == [("web", 3)]
    assert list(load("", overrides=over).function.spec.triggers) == ["default-http"]


def test_wrong_override_says_where() -> None:
    with pytest.raises(SpecError, match=r"overrides: spec\.handler: expected text, found a list"):
        load("", overrides={"spec": {"handler": []}})


def test_embedded_source() -> None:
    code = base64.b64encode(b"def handler(c, e):\r\n    return 'x'\r\n").decode()
    build = f"build: {{functionSourceCode: {code}}}"
    text = f"metadata: {{name: a}}\nspec: {{runtime: python, handler: 'mine:handler', {build}}}"
    loaded = load_text(text, "f")
    assert embedded_source(loaded.function) == ("mine.py", b"def handler(c, e):\n    return 'x'\n")
    assert embedded_source(load("").function) is None
    assert load_text(text.replace("handler: 'mine:handler', ", ""), "f").function.spec.handler == "handler:handler"
    assert "spec.runtime: the runtime is not given" in failure(text.replace("runtime: python, ", ""))
    assert "not base64" in failure(text.replace(code, "'%%%'"))


@pytest.mark.parametrize("handler", ["../x:handler", "a.b:handler", "..:h"])
def test_embedded_source_cannot_leave_its_folder(handler: str) -> None:
    text = "metadata: {name: a}\nspec: {runtime: python, handler: '%s', build: {functionSourceCode: eA==}}"
    assert "spec.handler" in failure(text % handler)


def test_embedded_source_with_inline_configuration() -> None:
    code = b"# @nuclio.configure\n#\n# function.yaml:\n#   spec: {description: inner, readinessTimeoutSeconds: 5}\n"
    text = "metadata: {name: a}\nspec: {runtime: python, description: outer, build: {functionSourceCode: %s}}"
    spec = load_text(text % base64.b64encode(code).decode(), "f").function.spec
    assert (spec.description, spec.readiness_timeout_seconds) == ("outer", 5)


def test_round_trip(tmp_path: Path) -> None:
    function = load(
        "  env:\n  - {name: A, value: 1}\n  eventTimeout: 1.5s\n  triggers:\n"
        "    w: {kind: widget, interval: 90s, framing: {kind: length}, headers: {A: 1}, pair: [1, a]}\n"
        "    web: {kind: http}\n"
    ).function
    file = tmp_path / "processor.yaml"
    file.write_bytes(dump_processor_yaml(function))
    assert load_processor(file) == function
    assert load_processor(tmp_path) == function
    assert load_function(file).function == function  # it is also a specification like any other


def test_hand_written_processor_yaml(tmp_path: Path) -> None:
    (tmp_path / "processor.yaml").write_text(HEAD + "  triggers: {w: {kind: widget, attributes: {PORT: 5}}}")
    assert load_processor(tmp_path).spec.triggers["w"].port == 5  # type: ignore[attr-defined]
    (tmp_path / "processor.yaml").write_text('{"apiVersion": "headrace.processor/1", "metadata": {}}')
    with pytest.raises(SpecError, match="a damaged processor"):
        load_processor(tmp_path)
