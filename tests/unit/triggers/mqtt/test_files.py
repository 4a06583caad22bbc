"""What is read from and kept in files: identity, password, TLS files, remembered filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import SpecError
from agent.triggers.mqtt.credentials import read_password, tls_context
from agent.triggers.mqtt.identity import client_id_of, device_digest
from agent.triggers.mqtt.remembered import Remembered
from agent.triggers.mqtt.spec import MqttSpec, Subscription
from tests.support.recording_sink import RecordingSink


def make(**keys: Any) -> MqttSpec:
    return MqttSpec(**{"kind": "mqtt", "url": "ssl://h", "subscriptions": [Subscription(topic="a")], **keys})


def test_client_id_is_stable_and_names_function_trigger_and_device(tmp_path: Path) -> None:
    machine = tmp_path / "machine-id"
    machine.write_text("0123456789abcdef\n")
    sink = RecordingSink(tmp_path)
    first = client_id_of(make(), sink, machine)
    assert first == client_id_of(make(), sink, machine) == f"headrace-f-t-{device_digest(machine)}"
    assert "0123" not in first
    machine.write_text("another\n")
    assert client_id_of(make(), sink, machine) != first
    assert len(device_digest(tmp_path / "none")) == 8
    assert client_id_of(make(client_id="mine"), sink) == "mine"


def test_password_from_wherever_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file \r\n")
    assert read_password(make(username="u", password_file=str(file))) == "from file "
    assert read_password(make(username="u", password="p")) == "p"
    assert read_password(make(url="ssl://u:q@h")) == "q"
    assert read_password(make()) is None


@pytest.mark.parametrize("key", ["password_file", "ca_file", "cert_file"])
def test_missing_files_name_their_key(tmp_path: Path, key: str) -> None:
    spec = make(username="u", **{key: str(tmp_path / "none")})
    with pytest.raises(SpecError) as error:
        read_password(spec)
        tls_context(spec)
    camel = {"password_file": "passwordFile", "ca_file": "caFile", "cert_file": "certFile"}[key]
    assert camel in error.value.what and error.value.where == f"attributes.{camel}" and error.value.fix


def test_files_that_are_not_pem(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("secret stuff")
    for keys in ({"ca_file": str(rubbish)}, {"cert_file": str(rubbish), "key_file": str(rubbish)}):
        with pytest.raises(SpecError) as error:
            tls_context(make(**keys))
        assert "PEM" in str(error.value) and "secret" not in str(error.value)


def test_plain_needs_no_context_and_insecure_checks_nothing() -> None:
    assert tls_context(make(url="tcp://h")) is None
    context = tls_context(make(insecure_skip_verify=True))
    assert context is not None and not context.check_hostname


def test_remembered_filters(tmp_path: Path) -> None:
    first = Remembered(tmp_path, "tcp://h:1", "me")
    assert first.filters == frozenset()
    first.save(frozenset({"a", "b/#"}))
    assert Remembered(tmp_path, "tcp://h:1", "me").filters == {"a", "b/#"}
    assert Remembered(tmp_path, "tcp://h:1", "you").filters == frozenset()
    before = (tmp_path / "subscriptions.json").stat().st_mtime_ns
    first.save(frozenset({"b/#", "a"}))
    assert (tmp_path / "subscriptions.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"session": 1, "filters": 3}', "\xff"])
def test_a_broken_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "subscriptions.json").write_bytes(text.encode("latin-1"))
    assert Remembered(tmp_path, "tcp://h:1", "me").filters == frozenset()
