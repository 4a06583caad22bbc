"""Puts the functions' own `nuclio_sdk` where the worker puts it: on the path, alone in its folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_channel import FakeChannel, protocol

SDK = Path(__file__).parents[4] / "runtimes" / "python" / "sdk"
sys.path.append(str(SDK))


@pytest.fixture
def channel() -> Iterator[FakeChannel]:
    channel = FakeChannel()
    yield channel
    channel.close()


@pytest.fixture
def lane(channel: FakeChannel) -> Callable[..., Any]:
    """Makes a Lane around a handler, logging into the fake channel."""
    from nuclio_sdk import Context, Logger, Platform, TriggerInfo
    from nuclio_sdk._worker.channel_event import event_class
    from nuclio_sdk._worker.lane import Lane
    from nuclio_sdk._worker.output import ChannelOutput

    def make(handler: Callable[..., Any], decode: bool = True) -> Any:
        output = ChannelOutput(channel)  # type: ignore[arg-type]
        logger = Logger("debug")
        logger.outputs["default"] = output
        context = Context(logger, Platform("local"), "0", TriggerInfo("http", "t"))
        return Lane(protocol, channel, handler, context, output, event_class(channel, decode=decode))

    return make
