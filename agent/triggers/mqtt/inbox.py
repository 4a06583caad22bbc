"""What was received and is not acknowledged yet: order of acknowledgements, redelivery, QoS 2.

Flow: link -> [inbox] -> function; outcome -> [inbox] -> link. Lives longer than a connection.

Promises
- Acknowledgements leave in the order of receipt, as MQTT asks; a message whose handler is slow holds back the ones
  behind it (the broker's in-flight window bounds how many).
- An acknowledgement never goes out on another connection than the one its message came on, because packet ids are used
  again: `_order` holds only what came on this connection.
- A message that the broker sends again because its connection broke while the handler was at work is not started a
  second time: it takes the place of its first copy and is acknowledged with it. It is the same message when the session
  survived and packet id, topic and payload agree: an id that we never acknowledged cannot have been given to another.
- QoS 2: PUBREC, which ends the broker's duty to keep the message, goes out after the handler succeeded. Until PUBREL
  the id is remembered and a repeated PUBLISH of it is answered without running anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from agent.triggers.mqtt.packets import PUBACK, PUBCOMP, PUBREC, Message, acknowledgement

WAITING, FINISHED, ABANDONED = 0, 1, 2


class Inbox:
    """`early`: acknowledge before the function runs (at most once); QoS 2 messages then start at their PUBREL."""

    def __init__(self, start: Callable[[Message], None], count: Callable[[str], None], *, early: bool = False) -> None:
        self._start = start
        self._count = count  # of redeliveries that found their first copy
        self._early = early
        self._write: Callable[[bytes], None] | None = None
        self._order: deque[Message] = deque()
        self._orphans: dict[int, Message] = {}
        self._recorded: dict[int, Message | None] = {}
        self._out = bytearray()
        self._flushing = False

    def opened(self, write: Callable[[bytes], None], *, session_present: bool) -> None:
        """A connection is up. Without a session the broker has forgotten every id it used."""
        self._write = write
        if not session_present:
            self._orphans.clear()
            self._recorded.clear()

    def closed(self) -> None:
        """The connection is gone: whatever is not acknowledged now will be sent again."""
        self._write = None
        self._orphans.update((message.mid, message) for message in self._order)
        self._order.clear()
        self._out.clear()

    def receive(self, message: Message) -> None:
        """A PUBLISH. Starts it, unless it is a repetition of one that is at work or done."""
        if message.qos == 0:
            self._start(message)
        elif message.qos == 2 and message.mid in self._recorded:
            self._acknowledge(PUBREC, message.mid)
        elif self._early:
            self._receive_early(message)
        elif not self._attach(message):
            self._order.append(message)
            self._start(message)

    def refuse(self, message: Message) -> None:
        """A PUBLISH that cannot be handled, now or ever: acknowledged in its turn, not started."""
        if message.qos and not (message.qos == 2 and message.mid in self._recorded):
            self._orphans.pop(message.mid, None)
            self._order.append(message)
            self.settle(message)

    def release(self, mid: int) -> None:
        """PUBREL. Answered for an unknown id too: its message was finished by a predecessor of this process."""
        message = self._recorded.pop(mid, None)
        self._acknowledge(PUBCOMP, mid)
        if message is not None:
            self.flush()
            self._start(message)

    def settle(self, message: Message, *, acknowledge: bool = True) -> None:
        """The message is done; `acknowledge` false: never started, and left to whoever connects next."""
        if message.qos == 0 or self._early:
            return
        message.state = FINISHED if acknowledge else ABANDONED
        self._advance()

    def flush(self) -> None:
        """Send what is due."""
        self._flushing = False
        if self._out and self._write is not None:
            self._write(bytes(self._out))
        self._out.clear()

    def _receive_early(self, message: Message) -> None:
        if message.qos == 2:
            self._recorded[message.mid] = message
            self._acknowledge(PUBREC, message.mid)
            return
        self._acknowledge(PUBACK, message.mid)
        self.flush()
        self._start(message)

    def _attach(self, message: Message) -> bool:
        first = self._orphans.pop(message.mid, None)
        if first is None or not message.dup or first.topic != message.topic or first.body != message.body:
            return False
        if first.state == ABANDONED or first.qos != message.qos:
            return False
        self._count("attached")
        self._order.append(first)
        self._advance()
        return True

    def _advance(self) -> None:
        order = self._order
        while order and order[0].state != WAITING:
            message = order.popleft()
            if message.state == ABANDONED:
                continue
            if message.qos == 2:
                self._recorded[message.mid] = None
            self._acknowledge(PUBACK if message.qos == 1 else PUBREC, message.mid)

    def _acknowledge(self, kind: int, mid: int) -> None:
        """Joins what becomes due in one turn of the loop into one write."""
        self._out += acknowledgement(kind, 2, mid)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)
