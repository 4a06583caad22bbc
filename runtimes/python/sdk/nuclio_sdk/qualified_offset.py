"""The place of one message in a partitioned stream, for explicit acknowledgement."""

from __future__ import annotations

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from typing import Any


class QualifiedOffset:
    """Topic, partition and offset of a message; give it to `await context.platform.explicit_ack(...)`."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset

    @staticmethod
    def from_event(event: Any) -> QualifiedOffset:
        """The place of `event`; its path stands in for a missing topic."""
        return QualifiedOffset(event.topic or event.path, event.shard_id, event.offset)

    def compile_explicit_ack_message(self) -> dict[str, Any]:
        """The acknowledgement as the message a processor understands."""
        place = {"topic": self.topic, "partition": self.partition, "offset": self.offset}
        return {"kind": "streamMessageAck", "attributes": place}
