"""Order of acknowledgements, redelivery over connections, QoS 2."""

from __future__ import annotations

import asyncio

from agent.triggers.mqtt.inbox import Inbox
from agent.triggers.mqtt.packets import Message


def message(mid: int, qos: int = 1, body: bytes = b"x", *, dup: bool = False) -> Message:
    return Message(qos << 1 | (8 if dup else 0), mid, b"t", body, None)


class Broker:
    """What an inbox started and sent."""

    def __init__(self, *, early: bool = False) -> None:
        self.started: list[Message] = []
        self.sent = b""
        self.log: list[str] = []
        self.inbox = Inbox(self._start, self.log.append, early=early)
        self.connect(present=False)

    def _start(self, item: Message) -> None:
        self.started.append(item)
        self.log.append("start")

    def _write(self, data: bytes) -> None:
        self.sent += data
        self.log.append("write")

    def connect(self, *, present: bool) -> None:
        self.inbox.opened(self._write, session_present=present)

    async def acknowledged(self) -> list[tuple[int, int]]:
        """Kind and packet id of what was sent since the last call."""
        await asyncio.sleep(0)
        sent, self.sent = self.sent, b""
        assert all(sent[at + 1] == 2 for at in range(0, len(sent), 4))
        return [(sent[at], sent[at + 2] << 8 | sent[at + 3]) for at in range(0, len(sent), 4)]


async def test_acknowledges_in_order_of_receipt_and_in_one_write() -> None:
    broker = Broker()
    items = [message(mid) for mid in (1, 2, 3)]
    for item in items:
        broker.inbox.receive(item)
    broker.inbox.settle(items[2])
    broker.inbox.settle(items[1])
    assert await broker.acknowledged() == []
    broker.inbox.settle(items[0])
    assert await broker.acknowledged() == [(0x40, 1), (0x40, 2), (0x40, 3)]
    assert broker.log.count("write") == 1


async def test_never_started_is_not_acknowledged_and_blocks_nobody() -> None:
    broker = Broker()
    first, second = message(1), message(2)
    broker.inbox.receive(first)
    broker.inbox.receive(second)
    broker.inbox.settle(first, acknowledge=False)
    broker.inbox.settle(second)
    assert await broker.acknowledged() == [(0x40, 2)]


async def test_an_old_connections_message_is_not_acknowledged_on_the_new_one() -> None:
    broker = Broker()
    old = message(1)
    broker.inbox.receive(old)
    broker.inbox.closed()
    broker.connect(present=True)
    new = message(1, body=b"another")
    broker.inbox.receive(new)
    broker.inbox.settle(old)
    assert await broker.acknowledged() == []
    broker.inbox.settle(new)
    assert await broker.acknowledged() == [(0x40, 1)]


async def test_redelivery_takes_the_place_of_its_first_copy() -> None:
    broker = Broker()
    first = message(1)
    broker.inbox.receive(first)
    broker.inbox.closed()
    broker.connect(present=True)
    broker.inbox.receive(message(1, dup=True))
    assert broker.started == [first] and broker.log.count("attached") == 1
    assert await broker.acknowledged() == []
    broker.inbox.settle(first)
    assert await broker.acknowledged() == [(0x40, 1)]


async def test_redelivery_of_what_finished_meanwhile_is_acknowledged_at_once() -> None:
    broker = Broker()
    first = message(1)
    broker.inbox.receive(first)
    broker.inbox.closed()
    broker.inbox.settle(first)
    broker.connect(present=True)
    broker.inbox.receive(message(1, dup=True))
    assert broker.started == [first]
    assert await broker.acknowledged() == [(0x40, 1)]


async def test_only_the_same_message_of_the_same_session_is_a_redelivery() -> None:
    for present, again in (
        (False, message(1, dup=True)),
        (True, message(1)),
        (True, message(1, body=b"y", dup=True)),
        (True, message(2, dup=True)),
        (True, message(1, qos=2, dup=True)),
    ):
        broker = Broker()
        broker.inbox.receive(message(1))
        broker.inbox.closed()
        broker.connect(present=present)
        broker.inbox.receive(again)
        assert len(broker.started) == 2


async def test_redelivery_over_two_losses() -> None:
    broker = Broker()
    first = message(1)
    broker.inbox.receive(first)
    for _ in range(2):
        broker.inbox.closed()
        broker.connect(present=True)
    broker.inbox.receive(message(1, dup=True))
    broker.inbox.settle(first)
    assert broker.started == [first]
    assert await broker.acknowledged() == [(0x40, 1)]


async def test_qos_2_is_recorded_after_success_and_runs_once() -> None:
    broker = Broker()
    first = message(7, qos=2)
    broker.inbox.receive(first)
    assert await broker.acknowledged() == []
    broker.inbox.settle(first)
    assert await broker.acknowledged() == [(0x50, 7)]
    broker.inbox.closed()  # the PUBREC is lost with its connection
    broker.connect(present=True)
    broker.inbox.receive(message(7, qos=2, dup=True))
    assert await broker.acknowledged() == [(0x50, 7)]
    broker.inbox.release(7)
    assert await broker.acknowledged() == [(0x70, 7)]
    assert broker.started == [first]
    broker.inbox.receive(message(7, qos=2))
    assert len(broker.started) == 2


async def test_pubrel_for_an_unknown_id_is_answered() -> None:
    """Else the broker waits for ever for what a predecessor of this process left."""
    broker = Broker()
    broker.inbox.release(9)
    assert await broker.acknowledged() == [(0x70, 9)]


async def test_early_acknowledges_before_it_starts() -> None:
    broker = Broker(early=True)
    broker.inbox.receive(message(1))
    assert broker.log == ["write", "start"]
    broker.inbox.settle(broker.started[0])
    assert await broker.acknowledged() == [(0x40, 1)]


async def test_early_qos_2_starts_at_pubrel() -> None:
    broker = Broker(early=True)
    broker.inbox.receive(message(1, qos=2))
    broker.inbox.receive(message(1, qos=2, dup=True))
    assert await broker.acknowledged() == [(0x50, 1), (0x50, 1)] and not broker.started
    broker.inbox.release(1)
    broker.inbox.release(1)
    assert len(broker.started) == 1
    assert await broker.acknowledged() == [(0x70, 1), (0x70, 1)]


async def test_refused_is_acknowledged_in_its_turn() -> None:
    broker = Broker()
    first = message(1)
    broker.inbox.receive(first)
    broker.inbox.refuse(message(2))
    assert await broker.acknowledged() == []
    broker.inbox.settle(first)
    assert await broker.acknowledged() == [(0x40, 1), (0x40, 2)]
    assert broker.started == [first]


async def test_nothing_is_sent_without_a_connection() -> None:
    broker = Broker()
    first = message(1)
    broker.inbox.receive(first)
    broker.inbox.settle(first)
    broker.inbox.closed()
    assert await broker.acknowledged() == []
