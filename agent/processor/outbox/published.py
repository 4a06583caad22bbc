"""What the handlers of one worker have published, by the event in hand, until that event has ended.

Flow: PUBLISH records -> lane -> [published] -> outbox, with the event's outcome.
Promise: a worker that publishes without end fills no memory: an event that is over the bound fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.model.outlet import Message

MOST_BYTES = 32 << 20  # of one event's messages, held in memory until it has ended
MOST_MESSAGES = 20_000
_OVERHEAD = 200


@dataclass(slots=True)
class Published:
    """Of one event: target and message in order. `problem`: why the event cannot succeed."""

    messages: list[tuple[str, Message]] = field(default_factory=list)
    size: int = 0
    problem: str = ""

    def add(self, target: str, message: Message, most_bytes: int) -> None:
        """One more, unless it is too much for one event."""
        self.size += len(message.body) + _OVERHEAD
        if self.size > most_bytes or len(self.messages) >= MOST_MESSAGES:
            self.messages.clear()
            self.problem = f"the handler has published more than {most_bytes} bytes or {MOST_MESSAGES} messages at once"
        if not self.problem:
            self.messages.append((target, message))


def message_of(attributes: list[tuple[str, str]], body: bytes) -> tuple[Message, bool]:
    """The message of a PUBLISH record, and whether it is to be sent whatever becomes of the event.

    Raises ValueError for what no worker of ours sends.
    """
    own = {name: value for name, value in attributes if name.startswith(":")}
    topic, qos = own.get(":topic", ""), own.get(":qos", "1")
    if not topic or "\0" in topic or "+" in topic or "#" in topic or len(topic.encode()) > 65535:
        raise ValueError("a publication without a topic")
    if qos not in ("0", "1", "2"):
        raise ValueError("a publication with an unknown qos")
    headers = [item for item in attributes if not item[0].startswith(":")]
    if any(len(text.encode()) > 65535 for item in headers for text in item):
        raise ValueError("a publication with a header that is too long")
    message = Message(topic, body, int(qos), own.get(":retain") == "1", headers, own.get(":key", ""))
    return message, own.get(":now") == "1"
