"""Logging: one event one line, fields after the message, library loggers led in."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from loguru import logger

from agent.logging_setup import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    logger.remove()
    logging.basicConfig(handlers=[], force=True)


def test_fields_follow_the_message(stream: io.StringIO) -> None:
    configure("info", stream)
    logger.bind(function="blink").warning(
        "worker restarted", worker=2, why="it died", again_in_s=0.25, none=None, empty=""
    )
    text = re.sub(r"^[-0-9]{10} [:.0-9]{12} ", "TIME ", stream.getvalue())
    assert text == (
        'TIME WARNING  worker restarted function=blink worker=2 why="it died" again_in_s=0.25 none=None empty=""\n'
    )


def test_level(stream: io.StringIO) -> None:
    configure("warn", stream)
    logger.info("quiet")
    logging.getLogger("lib").info("quiet")
    assert stream.getvalue() == ""
    with pytest.raises(ValueError, match="known: trace, debug"):
        configure("loud", stream)


def test_json(stream: io.StringIO) -> None:
    configure("debug", stream, json=True)
    logger.info("hello", level="field", size=3, path=io)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["message"], line["level_"], line["size"]) == ("info", "hello", "field", 3)
    assert line["time"][10] == "T"


def test_library_loggers_are_led_in(stream: io.StringIO) -> None:
    configure("info", stream)
    logging.getLogger("some.library").error("lost {braces} <red>%s</red>", "x")
    assert "ERROR    lost {braces} <red>x</red> logger=some.library\n" in stream.getvalue()


def test_nobody_forges_a_line(stream: io.StringIO) -> None:
    configure("info", stream)
    logger.info("topic\n2026 fake \x1b[31m", name="a\nb", bad='q"')
    assert stream.getvalue().count("\n") == 1
    assert r"topic\n2026 fake \x1b[31m" in stream.getvalue()
    assert r'name="a\nb" bad="q\""' in stream.getvalue()


def test_tracebacks_without_values(stream: io.StringIO) -> None:
    """A traceback shows code, never what variables held: those may be payloads."""
    configure("info", stream)
    secret = "s3" + "cret"
    try:
        raise KeyError(len(secret))
    except KeyError:
        logger.exception("failed", step="x")
    assert "failed step=x\nTraceback (most recent call last):" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


def test_configure_again_replaces(stream: io.StringIO) -> None:
    configure("info", io.StringIO())
    configure("info", stream)
    logger.info("once")
    logging.getLogger("lib").warning("once more")
    assert len(stream.getvalue().splitlines()) == 2
