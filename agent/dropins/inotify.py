"""A folder tree watched with inotify on the event loop: which of its top-level names something happened to.

Why not an observer of watchdog: it costs three threads, holds a file that was moved away back for half a second, and
does not say when the kernel's queue overflowed. What is needed here is one descriptor the loop already blocks on.
Flow: kernel -> [tree] -> `changed(name)`; the name is None when everything has to be looked at again.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from agent.dropins.names import is_code

IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 0x2000, 0x4000, 0x8000, 0x40000000
IN_ONLYDIR, IN_EXCL_UNLINK = 0x01000000, 0x04000000
IN_NONBLOCK, IN_CLOEXEC = 0x800, 0x80000

MASK = (
    IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
    | IN_ATTRIB | IN_ONLYDIR | IN_EXCL_UNLINK
)  # fmt: skip
"""Not IN_MODIFY: a file is looked at when its writer is done. IN_ATTRIB: a file that was made readable is a change."""

_HEAD = struct.Struct("iIII")


class Tree:
    """Watches `root` and every folder below it that may hold code, also those that come later."""

    def __init__(self, root: Path, changed: Callable[[str | None], None]) -> None:
        self._root = str(root)
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._folders: dict[int, str] = {}  # by watch descriptor, relative to the root; "" is the root
        self._parent = -1  # watch of the folder above, while the root is missing
        self._full = False
        self._descriptor: int = self._libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "fs.inotify.max_user_instances may be too low")

    def start(self) -> None:
        """Begin to report. Look at the tree after this, not before: then nothing falls into a gap."""
        self._watch("")
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _watch(self, relative: str) -> None:
        """This folder and those in it. A folder that vanishes meanwhile is no error."""
        path = os.path.join(self._root, relative) if relative else self._root
        descriptor = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(MASK))
        if descriptor < 0:
            self._cannot(path, ctypes.get_errno())
            return
        self._folders[descriptor] = relative
        try:
            with os.scandir(path) as entries:
                inner = [entry.name for entry in entries if is_code(entry.name) and _is_folder(entry, relative)]
        except OSError:
            return
        for name in inner:
            self._watch(f"{relative}/{name}" if relative else name)

    def _cannot(self, path: str, number: int) -> None:
        if number == errno.ENOSPC and not self._full:
            self._full = True
            logger.error(
                "changes in some folders will not be seen: no inotify watches are left",
                folder=path,
                fix="raise fs.inotify.max_user_watches, or send SIGHUP after changes",
            )
        elif number not in (errno.ENOENT, errno.ENOTDIR, errno.ENOSPC):
            logger.warning("folder cannot be watched", folder=path, error=os.strerror(number))

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            self._event(watch, mask, name)

    def _event(self, watch: int, mask: int, name: str) -> None:
        if mask & (IN_Q_OVERFLOW | IN_UNMOUNT):
            self._changed(None)
            return
        if watch == self._parent:
            if name == os.path.basename(self._root):
                self._await_root()
            return
        if mask & IN_IGNORED:
            self._folders.pop(watch, None)
            return
        relative = self._folders.get(watch)
        if relative == "" and mask & (IN_DELETE_SELF | IN_MOVE_SELF):
            self._forget("")
            self._await_root()
            return
        if relative is None or (name and not is_code(name)):
            return
        inner = f"{relative}/{name}".strip("/")
        if mask & IN_ISDIR and mask & (IN_CREATE | IN_MOVED_TO):
            self._watch(inner)
        if mask & IN_ISDIR and mask & IN_MOVED_FROM:
            self._forget(inner)
        if mask & IN_CREATE and not mask & IN_ISDIR and not self._complete(inner):
            return
        self._changed(inner.partition("/")[0] or None)

    def _await_root(self) -> None:
        """The root was moved away or deleted: watch the one that takes its place, now or later."""
        mask = ctypes.c_uint32(IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)
        if self._parent < 0:
            above = os.fsencode(os.path.dirname(self._root))
            self._parent = self._libc.inotify_add_watch(self._descriptor, above, mask)
        if os.path.isdir(self._root):
            self._watch("")
            self._libc.inotify_rm_watch(self._descriptor, self._parent)
            self._parent = -1
        else:
            logger.error("the functions folder is gone; what runs goes on", folder=self._root)
        self._changed(None)

    def _complete(self, relative: str) -> bool:
        """A file that was just made is looked at when it is closed; a link, or a hard link, is complete at once."""
        try:
            info = os.lstat(os.path.join(self._root, relative))
        except OSError:
            return False
        return info.st_nlink > 1 or not os.path.isfile(os.path.join(self._root, relative)) or _is_link(info)

    def _forget(self, relative: str) -> None:
        """A folder was moved away: its watches go on working under the wrong name unless they are ended."""
        for watch, folder in list(self._folders.items()):
            if not relative or folder == relative or folder.startswith(f"{relative}/"):
                self._libc.inotify_rm_watch(self._descriptor, watch)
                self._folders.pop(watch, None)


def _is_folder(entry: os.DirEntry[str], relative: str) -> bool:
    """Links to folders are followed at the top only: deeper, they could lead round in a circle."""
    try:
        return entry.is_dir(follow_symlinks=not relative)
    except OSError:
        return False


def _is_link(info: os.stat_result) -> bool:
    return (info.st_mode & 0o170000) == 0o120000
