"""The address that follows from a spec, and example.yaml."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

import agent.triggers.http.spec
from agent.model.errors import SpecError
from agent.model.registry import trigger_kind
from agent.triggers.http.spec import HttpSpec


@pytest.mark.parametrize(
    ("keys", "address"),
    [
        ({}, ("127.0.0.1", 0)),
        ({"port": 80}, ("127.0.0.1", 80)),
        ({"url": ":8080"}, ("127.0.0.1", 8080)),
        ({"url": "0.0.0.0:8080"}, ("0.0.0.0", 8080)),
        ({"url": "http://[::1]:8080"}, ("::1", 8080)),
        ({"url": ":8080", "port": 90}, ("127.0.0.1", 90)),
        ({"url": "myhost"}, ("myhost", 0)),
        ({"socket": "/s"}, None),
        ({"socket": "/s", "port": 80}, ("127.0.0.1", 80)),
        ({"socket": "/s", "url": ":80"}, ("127.0.0.1", 80)),
    ],
)
def test_address(keys: dict[str, Any], address: tuple[str, int] | None) -> None:
    assert HttpSpec(kind="http", **keys).address() == address


@pytest.mark.parametrize("url", [":http", ":99999", "[::1"])
def test_url_that_is_no_address(url: str) -> None:
    with pytest.raises(SpecError, match="not an address"):
        HttpSpec(kind="http", url=url).address()


def test_nuclio_keys() -> None:
    attributes = {
        "kind": "http",
        "port": 8080,
        "readBufferSize": 8192,
        "maxRequestBodySize": 100,
        "reduceMemoryUsage": True,
        "cors": {"enabled": True, "allowOrigins": ["a"], "preflightMaxAgeSeconds": -1},
        "ingresses": {"0": {"host": "h", "paths": ["/"]}},
        "serviceType": "NodePort",
        "disablePortPublishing": True,
    }
    spec = msgspec.convert(attributes, HttpSpec)
    assert (spec.read_buffer_size, spec.max_request_body_size, spec.cors.allow_origins) == (8192, 100, ("a",))


def test_kind_is_registered() -> None:
    assert trigger_kind("HTTP").spec is HttpSpec


def test_example_is_a_function() -> None:
    path = Path(agent.triggers.http.spec.__file__).with_name("example.yaml")
    spec = YAML(typ="safe").load(path)["spec"]
    (trigger,) = spec["triggers"].values()
    assert msgspec.convert({"kind": trigger["kind"]} | trigger["attributes"], HttpSpec).port == 8080
    compile(base64.b64decode(spec["build"]["functionSourceCode"]), "hello.py", "exec")
