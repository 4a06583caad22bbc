"""Whatever ends the link to the agent means that the agent is gone; what is no command is not one of those."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.processor.link import LINE_LIMIT, Link, Report


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Link, socket.socket]]:
    """The processor's end, and the socket that is the agent's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    link = await Link.open(ours.detach())
    with theirs:
        yield link, theirs
        link.close()


async def heard(lines: bytes) -> list[Report]:
    """The commands taken of these lines, once the link is at its end."""
    commands: list[Report] = []
    async with opened() as (link, agent):
        with agent:
            listening = asyncio.create_task(link.listen(commands.append))
            await asyncio.to_thread(agent.sendall, lines)
        await asyncio.wait_for(listening, 5)
    return commands


@pytest.mark.parametrize("nonsense", [b"5", b"[1]", b"null", b'"text"', b"{", b"\xff", b"", b"[" * 50_000])
async def test_what_is_no_object_is_skipped(nonsense: bytes) -> None:
    assert await heard(nonsense + b'\n{"command": "start"}\n') == [{"command": "start"}]


async def test_a_long_line_is_read() -> None:
    text = "x" * 200_000
    assert await heard(b'{"command": "%s"}\n' % text.encode()) == [{"command": text}]


async def test_a_line_without_end_is_the_end() -> None:
    async with opened() as (link, agent):
        listening = asyncio.create_task(link.listen(lambda command: None))
        sending = asyncio.create_task(asyncio.to_thread(agent.sendall, b"x" * (2 * LINE_LIMIT + 1)))
        await asyncio.wait_for(listening, 5)  # it returns although the agent is still there
        agent.shutdown(socket.SHUT_RDWR)
        link.close()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_command_that_cannot_be_carried_out_does_not_end_the_link() -> None:
    carried_out: list[str] = []

    def on_command(command: Report) -> None:
        carried_out.append(command["command"])

    async with opened() as (link, agent):
        with agent:
            agent.sendall(b'{"other": 1}\n{"command": "start"}\n')
        await asyncio.wait_for(link.listen(on_command), 5)
    assert carried_out == ["start"]
