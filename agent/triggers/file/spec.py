"""The keys of the file trigger, and the rules between them that one type cannot say.

Flow: function.yaml -> agent.model.load -> FileSpec -> everything else in this folder, which trusts it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from agent.model.spec import Delivery, Duration, TriggerSpec

Size = Annotated[int, Meta(ge=1, le=1 << 30)]
"""Bytes."""


class FileSpec(TriggerSpec, frozen=True, kw_only=True):
    """What to watch, when a file is complete, and what becomes of it. Sizes in bytes, times in seconds."""

    path: Annotated[str, Meta(min_length=1)]
    patterns: tuple[str, ...] = ()  # empty: every name, or what the wildcard in `path` says
    ignore: tuple[str, ...] = (".*", "*~", "*.tmp", "*.swp", "*.part")
    recursive: bool = False
    read: Literal["files", "lines"] = "files"
    body: Literal["content", "path"] = "content"
    content_type: str = ""
    max_file_size: Size = 8 << 20  # larger files are handed over as their path
    max_line_size: Size = 1 << 20  # longer lines are handed over in pieces
    settle: Duration = Duration(0.5)
    settle_max: Duration = Duration(600.0)  # 0: wait for ever
    rescan: Duration = Duration(60.0)
    poll: bool = False
    poll_interval: Duration = Duration(2.0)
    initial: Literal["all", "new"] = "all"
    rotated: tuple[str, ...] = ("{name}.*", "{name}-*")  # names a followed file may get when it is rotated away
    max_in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 32
    on_success: Literal["leave", "delete", "move"] = "leave"
    move_to: str = ""
    on_failure: Literal["leave", "move"] = "leave"
    error_to: str = ""

    default_delivery: ClassVar[Delivery] = "at-least-once"
    default_order_key: ClassVar[str] = "path"
    default_id_from: ClassVar[str] = "message-id"

    def __post_init__(self) -> None:
        """Raise ValueError, which `load` turns into a SpecError that says where the trigger stands."""
        _needs(self.on_success == "move", self.move_to, "onSuccess: move", "moveTo")
        _needs(self.on_failure == "move", self.error_to, "onFailure: move", "errorTo")
        for key, choice in (("onSuccess", self.on_success), ("onFailure", self.on_failure)):
            if self.read == "lines" and choice != "leave":
                raise ValueError(f"`{key}` must be `leave` with `read: lines`, which follows growing files")
        for key, value in (("rescan", self.rescan), ("pollInterval", self.poll_interval)):
            if value <= 0:
                raise ValueError(f"`{key}` is {value:g} s; give a time above 0, such as 60s")
        if wrong := [item for item in self.rotated if not item.startswith("{name}") or "/" in item]:
            raise ValueError(f"`rotated` has {wrong[0]!r}; a pattern there starts with {{name}} and has no slash")
        if self.settle < 0 or self.settle_max < 0 or 0 < self.settle_max < self.settle:
            raise ValueError(
                "`settle` and `settleMax` must not be negative, and `settleMax` not below `settle` except 0"
            )

    @property
    def rescan_s(self) -> float:
        """Seconds between two looks at the whole tree."""
        return min(self.rescan, self.poll_interval) if self.poll else self.rescan


def _needs(wanted: bool, folder: str, choice: str, key: str) -> None:
    if wanted and not folder:
        raise ValueError(f"`{key}` is missing: `{choice}` needs the folder to move to")
    if folder and not wanted:
        raise ValueError(f"`{key}` is given without `{choice}`")
