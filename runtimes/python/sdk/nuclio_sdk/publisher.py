"""`context.publish`: checks what a handler sends, where the handler sees the error, and hands it to the processor.

Flow: handler -> [publisher] -> PUBLISH record -> the processor's outbox -> broker. The attributes are named in
shmem/PROTOCOL.md. Nothing here waits for a broker or a disk: the processor does, before the event counts as handled.
"""

from __future__ import annotations

from .json_encoder import Encoder

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._worker.output import ChannelOutput

_VERBATIM = (str, bytes, bytearray, memoryview)
_LONGEST = 65535  # bytes of a topic or of a header's value


class Publisher:
    """`bindings`: their topics by name. `brokers`: names of the mqtt triggers, the first one for bare topics."""

    def __init__(
        self, output: ChannelOutput, bindings: Mapping[str, str], brokers: list[str], max_body_bytes: int
    ) -> None:
        self._output = output
        self._bindings, self._brokers = bindings, brokers
        self._max_body_bytes = max_body_bytes
        self._encode = Encoder().encode

    def __call__(
        self,
        target: str,
        body: Any,
        topic: str | None,
        qos: int,
        retain: bool,
        headers: Mapping[str, Any] | None,
        key: str | None,
        now: bool,
    ) -> None:
        """Raises ValueError, TypeError: what the handler can mend."""
        name, topic = self._address(target, topic)
        if qos not in (0, 1, 2):
            raise ValueError(f"qos {qos!r}: it is 0, 1 or 2")
        attributes = [(":topic", topic), (":qos", str(int(qos)))]
        if retain:
            attributes.append((":retain", "1"))
        if key is not None:
            attributes.append((":key", str(key)))
        if now:
            attributes.append((":now", "1"))
        data, content_type = self._body(body)
        attributes += self._headers(headers, content_type)
        channel = self._output.channel
        if channel is None:
            raise RuntimeError("only the worker itself can publish, not a process that it has forked")
        channel.publish(self._output.current(), name, attributes, data)

    def _address(self, target: str, topic: str | None) -> tuple[str, str]:
        """Name of the binding or trigger, and the topic."""
        if not isinstance(target, str):
            raise TypeError(f"the target is the name of a binding, or a topic, not {type(target).__name__}")
        if topic is None and target not in self._bindings and target not in self._brokers:
            if not self._brokers or (self._bindings and "/" not in target):
                raise self._unknown(target)
            target, topic = self._brokers[0], target
        elif topic is None:
            topic = self._bindings.get(target, "")
            if not topic:
                raise ValueError(f"{target!r} has no topic of its own: write publish({target!r}, body, topic=...)")
        elif not target and self._brokers:
            target = self._brokers[0]
        elif target not in self._bindings and target not in self._brokers:
            raise self._unknown(target)
        return target, _checked_topic(topic)

    def _unknown(self, target: str) -> ValueError:
        known = ", ".join((*self._bindings, *self._brokers))
        if not known:
            fix = "this function has no bindings, and no mqtt trigger whose broker a bare topic could go to"
        elif self._brokers:
            instead = f"publish({self._brokers[0]!r}, body, topic=...)"
            fix = f"there are {known}; for a bare topic without a slash write {instead}"
        else:
            fix = f"there are {known}"
        return ValueError(f"no binding {target!r} to publish to: {fix}")

    def _body(self, body: Any) -> tuple[Any, str]:
        """Bytes or text, and the content type that goes without saying."""
        data, content_type = (body, "") if isinstance(body, _VERBATIM) else (self._encode(body), "application/json")
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogateescape")
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if size > self._max_body_bytes:
            raise ValueError(f"a body of {size} bytes is over the function's maxBodyBytes, {self._max_body_bytes}")
        return data, content_type

    def _headers(self, headers: Mapping[str, Any] | None, content_type: str) -> list[tuple[str, str]]:
        found = [(str(name), str(value)) for name, value in (headers or {}).items()]
        for name, value in found:
            if name.startswith(":") or not name:
                raise ValueError(f"header {name!r}: a name does not begin with a colon")
            if max(len(name), len(value)) * 4 > _LONGEST:
                raise ValueError(f"header {name[:80]!r} is too long")
        if content_type and not any(name.lower() == "content-type" for name, _ in found):
            found.append(("Content-Type", content_type))
        return found


def _checked_topic(topic: str) -> str:
    if not isinstance(topic, str):
        raise TypeError(f"a topic is text, not {type(topic).__name__}")
    if not topic or "\0" in topic or "+" in topic or "#" in topic or len(topic.encode()) > _LONGEST:
        raise ValueError(f"{topic[:80]!r} is no topic: it has 1 to 65535 bytes and none of + # or zero")
    return topic


def no_publisher(*_: Any) -> None:
    """What a context outside a worker has."""
    raise RuntimeError("there is no processor to publish through: this context was not made by a worker")


if TYPE_CHECKING:
    Publish = Callable[[str, Any, str | None, int, bool, Mapping[str, Any] | None, str | None, bool], None]
