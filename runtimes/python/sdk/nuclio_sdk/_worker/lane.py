"""One worker: what its loops share. A lane is the channel, the handler behind it, and what becomes of results."""

from __future__ import annotations

import gc
import sys

from ..context import Context
from .channel_event import ChannelEvent, Record
from .output import ChannelOutput
from .replies import answerer, error_text, reply_to_error

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shmem._channel import WorkerChannel


class ViewKept(Exception):
    """The handler kept a view of an event's body beyond its return: the channel's memory cannot be given back."""


class Lane:
    """Everything a loop needs, made once at start."""

    def __init__(
        self,
        protocol: Any,
        channel: WorkerChannel,
        handler: Callable[..., Any],
        context: Context,
        output: ChannelOutput,
        event_class: type[ChannelEvent],
    ) -> None:
        self.protocol = protocol  # the extension: record kinds, flags, errors
        self.channel = channel
        self.handler = handler
        self.context = context
        self.output = output
        self.event_class = event_class
        self.fatal: tuple[type[Exception], ...] = (protocol.RingClosed, protocol.RingBroken)
        self.answer = answerer(channel, self.fatal)

    def failed(self, id: int, error: BaseException) -> None:
        """The handler raised: a reply with status 500, and an error in the function's log."""
        reply = reply_to_error(error)
        if reply[0] == 500 and isinstance(reply[3], str):
            self.context.logger.error(reply[3])
        try:
            self.channel.reply(id, *reply)
        except self.fatal:
            raise
        except Exception as worse:  # no room for a reply as long as that
            self.channel.reply(id, 500, "text/plain", None, f"{type(error).__name__}; its text was lost: {worse}")

    def release(self) -> None:
        """Give the record back. Raises ViewKept when the handler holds on to its memory."""
        try:
            self.channel.release()
        except BufferError:
            gc.collect()  # a view may hang in a cycle, such as an exception and its frame
            try:
                self.channel.release()
            except BufferError:
                raise ViewKept("the handler kept event.body_view, or a part of it, beyond its return") from None

    def take_batch(self, first: Record) -> list[ChannelEvent]:
        """The events of a batch whose first record is in hand; all of them detached, the last one still in hand."""
        record: Record | None = first
        events = []
        while record is not None and record[0] == self.protocol.EVENT:  # anything else ends it, BATCH_END above all
            event = self.event_class(record)
            event.detach()
            events.append(event)
            if not record[1] & self.protocol.MORE:
                break
            self.release()
            record = self._next()
        return events

    def _next(self) -> Record:
        while (record := self.channel.take()) is None:
            self.channel.wait()  # the processor is in the middle of putting the batch
        return record

    def answer_batch(self, events: list[ChannelEvent], result: Any) -> None:
        """A list answers event by event, matched by `event_id`; any other result answers all of them."""
        if not isinstance(result, list):
            for event in events:
                self.answer(event._record[2], result)
            return
        ids = [_plain(event.id) for event in events]
        replies = {_plain(reply.event_id): reply for reply in result if getattr(reply, "event_id", None)}
        strangers = len(result) - len(replies)
        if strangers:
            self.context.logger.warn(f"{strangers} of the batch's replies have no event_id of their own: dropped")
        for event, event_id in zip(events, ids, strict=True):
            missing = (500, f"The handler returned no reply with event_id {event_id}")
            self.answer(event._record[2], replies.get(event_id, missing))

    def fail_batch(self, events: list[ChannelEvent], error: BaseException) -> None:
        for event in events:
            self.failed(event._record[2], error)

    def callback_failed(self, name: str, error: BaseException) -> None:
        """A termination or drain callback raised: said in the log, and the worker goes on."""
        self.context.logger.error(f"{name} callback: {error_text(error)}")

    def flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # its reader is gone, or the function closed it
                continue


def _plain(event_id: Any) -> str:
    return event_id.decode("latin-1") if isinstance(event_id, bytes) else str(event_id)
