from __future__ import annotations

from pathlib import Path

import pytest

from agent.configuration import Configuration, load_configuration
from agent.model.errors import SpecError

SHIPPED = Path(__file__).parents[2] / "configs" / "agent.yaml"


def test_precedence(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("admin: {port: 1, host: 127.0.0.2}\nsupervisor: {restartDelay: 2s}\n")
    environment = {"HEADRACE__ADMIN__PORT": "2", "HEADRACE__PATHS__STATE": "/env", "HEADRACE__PATHS__RUN": "/env"}
    configuration, warnings = load_configuration(file, environment, {"paths": {"run": "/command"}})
    assert configuration.admin.port == 2
    assert configuration.admin.host == "127.0.0.2"
    assert configuration.supervisor.restart_delay == 2.0
    assert (configuration.paths.state, configuration.paths.run) == ("/env", "/command")
    assert warnings == []


def test_underscores_in_variables_do_not_count():
    configuration, _ = load_configuration(None, {"HEADRACE__SUPERVISOR__CRASH_LIMIT": "3"}, {})
    assert configuration.supervisor.crash_limit == 3


def test_shipped_file_shows_the_defaults():
    configuration, warnings = load_configuration(SHIPPED, {}, {})
    defaults = Configuration()
    assert warnings == []
    for section in ("admin", "supervisor", "dropins", "logging"):
        assert getattr(configuration, section) == getattr(defaults, section)


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("admin:\n  port: many\n", {}, "agent.yaml:2:9"),
        ("admin: [", {}, "agent.yaml:1:"),
        ("", {"HEADRACE__ADMIN__PORT": "x"}, "HEADRACE__ADMIN__PORT"),
        ("supervisor: {restartDelay: 5}", {}, "restartDelay"),
    ],
)
def test_errors_say_where(tmp_path, text, environment, said):
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_configuration(file, environment, {})
    assert said in str(caught.value)


def test_misspelt_key_is_a_warning(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("admin: {prot: 1}\n")
    _, warnings = load_configuration(file, {}, {})
    assert "port" in str(warnings[0])


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        load_configuration(tmp_path / "none.yaml", {}, {})
