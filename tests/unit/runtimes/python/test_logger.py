"""context.logger: levels, fields, formatting that never raises."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import nuclio_sdk.logger
import pytest
from nuclio_sdk import Logger
from nuclio_sdk._worker.output import ChannelOutput

from tests.support.fake_channel import FakeChannel


@pytest.fixture
def records(channel: FakeChannel) -> tuple[Logger, FakeChannel]:
    logger = Logger("debug")
    logger.outputs["default"] = ChannelOutput(channel)  # type: ignore[arg-type]
    return logger, channel


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "args", "text"),
    [
        ("plain", (), "plain"),
        ("100%", (), "100%"),
        ("a %s b %d", ("x", 5), "a x b 5"),
        ("%(a)s", ({"a": 1},), "1"),
        ("too few %s", ("x", "y"), "too few %s x y"),
        ("bad %d", ("x",), "bad %d x"),
        (5, (), "5"),
        (Unprintable(), (), "<Unprintable without text>"),
        ("%s", (Unprintable(),), "%s <Unprintable without text>"),
    ],
)
def test_messages(records: tuple[Logger, FakeChannel], message: Any, args: tuple[Any, ...], text: str) -> None:
    logger, channel = records
    logger.info(message, *args)
    assert channel.logs == [(0, 1, text, "")]


@pytest.mark.parametrize(("name", "rank"), [("debug", 0), ("info", 1), ("warn", 2), ("error", 3)])
def test_levels(records: tuple[Logger, FakeChannel], name: str, rank: int) -> None:
    logger, channel = records
    getattr(logger, name)("a")
    getattr(logger, f"{name}_with")("b %s", 1, key="v")
    assert channel.logs == [(0, rank, "a", ""), (0, rank, "b 1", '{"key": "v"}')]
    channel.logs.clear()
    logger.level = nuclio_sdk.logger.ERROR
    getattr(logger, name)("a")
    getattr(logger, f"{name}_with")("a")
    assert len(channel.logs) == (2 if name == "error" else 0)


@pytest.mark.parametrize(("level", "number"), [("info", 20), ("WARN", 30), ("warning", 30), (40, 40), ("?", 10)])
def test_level_names(level: Any, number: int) -> None:
    assert Logger(level).level == number


def test_a_record_below_the_level_is_not_formatted(records: tuple[Logger, FakeChannel]) -> None:
    logger, channel = records
    logger.level = nuclio_sdk.logger.INFO
    logger.debug("%s", Unprintable())
    assert channel.logs == []


def test_bound_fields_win(records: tuple[Logger, FakeChannel]) -> None:
    logger, channel = records
    logger.bind(a="bound")
    logger.info_with("m", a="call", b=1)
    assert json.loads(channel.logs[0][3]) == {"a": "bound", "b": 1}


def test_any_field_can_be_written(records: tuple[Logger, FakeChannel]) -> None:
    logger, channel = records
    circle: list[Any] = []
    circle.append(circle)
    logger.info_with("m", circle=circle, ok=1)
    logger.info_with("m", bad=Unprintable())
    logger.info_with("m", keys={(1, 2): 3})
    assert json.loads(channel.logs[0][3]) == {"circle": "[[...]]", "ok": "1"}
    assert "Unable to serialize" in channel.logs[1][3]
    assert json.loads(channel.logs[2][3]) == {"keys": "{(1, 2): 3}"}


def test_other_outputs(records: tuple[Logger, FakeChannel]) -> None:
    logger, channel = records
    file = io.StringIO()
    logger.set_handler("mine", file, nuclio_sdk.logger.JSONFormatter())
    logger.warn_with("m %s", 1, a=1)
    written = json.loads(file.getvalue()[1:])
    assert file.getvalue()[0] == "l" and written["level"] == "warning" and written["message"] == "m 1"
    assert written["with"] == {"a": 1} and len(channel.logs) == 1
    logger.set_handler("default", file, nuclio_sdk.logger.HumanReadableFormatter())
    logger.info_with("human", b=2)
    assert len(channel.logs) == 1 and "[info] human: {'b': 2}" in file.getvalue()
    assert isinstance(nuclio_sdk.logger.JSONFormatter(), logging.Formatter)


def test_an_output_that_fails_is_not_the_handlers_problem(
    records: tuple[Logger, FakeChannel], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, channel = records
    file = io.StringIO()
    logger.set_handler("mine", file, nuclio_sdk.logger.HumanReadableFormatter())
    file.close()
    logger.info("x")
    assert len(channel.logs) == 1 and "log record lost" in capsys.readouterr().err


def test_without_a_processor_records_go_to_stderr(
    records: tuple[Logger, FakeChannel], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, channel = records

    def gone(*_: Any) -> None:
        raise OSError("gone")

    monkeypatch.setattr(channel, "log", gone)
    logger.error("lost?")
    output = logger.outputs["default"]
    assert isinstance(output, ChannelOutput)
    output.channel = None  # as in a forked child
    logger.error_with("child", a=1)
    printed = capsys.readouterr().err
    assert "[error] lost?" in printed and '[error] child {"a": 1}' in printed
