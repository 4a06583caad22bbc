"""Which device is meant, and waiting for it.

Why: an adapter that is pulled comes back, often under another name; whoever holds its first name waits for ever.
Flow: `open_device` -> path or pattern or USB identity -> `port.open_port`; the trigger calls it again after a loss.
Promise: a device that appears is opened at once where the kernel can tell (inotify), else within a second or so.
"""

from __future__ import annotations

import asyncio
import glob
import os
import random
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from agent.model.errors import SourceUnavailable
from agent.model.sink import Sink
from agent.triggers.serial.arrival import Arrivals
from agent.triggers.serial.port import Port, open_port
from agent.triggers.serial.spec import Match, SerialSpec, usb_id

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0
SETTLE_S = 0.01
"""Changes in a folder come in swarms: one look for all of them."""
LOOK_AGAIN_S = 5.0
"""How long to rely on inotify alone: a folder that another kernel or container fills does not tell."""


async def open_device(spec: SerialSpec, sink: Sink) -> Port:
    """The port of `spec`, once there is one. Until then the sink is down and says why."""
    delay = FIRST_DELAY_S
    with Arrivals() as arrivals:
        while True:
            # Watched before looked at, so that nothing can appear in between unnoticed.
            watching = arrivals.watch(_folders(spec))
            try:
                return _open_first(spec)
            except SourceUnavailable as error:
                sink.down(str(error))
                absent = isinstance(error, Absent)
            wait_s = LOOK_AGAIN_S if absent and watching else delay * random.uniform(0.5, 1.0)
            if await arrivals.wait(wait_s):
                delay = FIRST_DELAY_S
                await asyncio.sleep(SETTLE_S)
            else:
                delay = min(2 * delay, LONGEST_DELAY_S)


class Absent(SourceUnavailable):
    """No device has the name or identity that is looked for."""


def _open_first(spec: SerialSpec) -> Port:
    """The first candidate that can be opened. Raises the first one's error, or Absent."""
    problem: SourceUnavailable | None = None
    for path in candidates(spec):
        try:
            return open_port(path, spec)
        except SourceUnavailable as error:
            problem = problem or error
    raise problem or Absent(
        "no such device", where=spec.label, fix="plug it in; `ls /dev/serial/by-id` shows the names"
    )


def candidates(spec: SerialSpec) -> list[str]:
    """Paths that may be the device and lead somewhere, in natural order: ttyUSB2 before ttyUSB10."""
    if spec.match is not None:
        found = [port.device for port in list_ports.comports() if _matches(spec.match, port)]
    elif os.path.exists(spec.device) or not glob.has_magic(spec.device):
        found = [spec.device]
    else:
        found = glob.glob(spec.device)
    return sorted(filter(os.path.exists, found), key=_natural)


def _matches(match: Match, port: ListPortInfo) -> bool:
    texts = ((match.serial_number, port.serial_number), (match.product, port.product))
    numbers = ((usb_id(match.vid, "vid"), port.vid), (usb_id(match.pid, "pid"), port.pid))
    return all(wanted in (None, found) for wanted, found in numbers) and all(
        wanted is None or fnmatchcase(found or "", wanted) for wanted, found in texts
    )


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", path)]


def _folders(spec: SerialSpec) -> Iterator[str]:
    """Where a change may mean that the device is there: the folder of its name, and of what the name leads to."""
    pattern = spec.device or "/dev/*"
    folder = os.path.dirname(os.path.abspath(pattern))
    while glob.has_magic(folder) or not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    yield folder
    for link in [pattern] if not glob.has_magic(pattern) else glob.glob(pattern):
        target = os.path.dirname(os.path.realpath(link))
        if os.path.islink(link) and os.path.isdir(target):
            yield target
