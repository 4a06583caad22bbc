"""Asks the kernel whether somebody has a file open for writing.

Why: a pause in writing is not the end of it, and inotify tells of a writer's end only when it comes. A read lease is
granted only while nobody may write, so asking for one, and giving it back at once, answers the question.
Flow: Reader and Disposal, in the disk thread -> [here] -> kernel.
Promise: the file and its writers are left as they were. One who opens the file between asking and giving back waits for
those microseconds (with O_NONBLOCK he gets EWOULDBLOCK).
"""

from __future__ import annotations

import errno
import fcntl
import signal


def is_being_written(descriptor: int) -> bool | None:
    """Whether anyone can write to the regular file that this read-only descriptor is of, also through a mapping.

    None: the kernel does not say. It tells only a file's owner and who has CAP_LEASE, and not every file system does.
    Not to be asked on network mounts, where a refusal means nothing.
    """
    try:
        # Who opens the file meanwhile makes the kernel signal us. SIGIO, its default, would end the process; SIGURG is
        # ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
