"""One open serial port: opened with every setting, read and written without a thread, closed without a trace.

Why pyserial only opens: its blocking reads would need a thread, and on a vanished device they raise different errors
at different calls. Flow: `device` finds a path -> `open_port` -> `Port.read` and `Port.write` -> trigger.
Promise: a hang-up is seen at once, also while nobody reads; no loop ever spins on it; `close` leaves no descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import os
import select
import struct
import termios
from collections.abc import Callable, Coroutine
from typing import Any

import serial
import serial.rs485

from agent.model.errors import SourceUnavailable
from agent.triggers.serial.spec import Rs485, SerialSpec

READ_BYTES = 65536
_PTYS = "/dev/pts/"
_TIOCGICOUNT = 0x545D
_ICOUNT = struct.Struct("20i")  # struct serial_icounter_struct
_INT = struct.Struct("i")
_LINE_ERRORS = {6: "line_framing", 7: "line_overrun", 8: "line_parity", 9: "line_break", 10: "buffer_overrun"}
_PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}
_GONE = select.EPOLLHUP | select.EPOLLERR


class PortLost(Exception):
    """The device went away while it was open; the text says how that showed."""


class _Serial(serial.Serial):  # type: ignore[misc]  # pyserial is untyped
    """pyserial without its flush at opening, which would drop what a quick device has already sent."""

    def _reset_input_buffer(self) -> None:
        pass


def open_port(path: str, spec: SerialSpec) -> Port:
    """Open `path` with the lines, speed and lock of `spec`. Raises SourceUnavailable that says how to mend it."""
    device = _Serial(exclusive=True)
    try:
        _configure(device, spec)
        device.port = path
        device.open()
        _finish_settings(device.fd, os.path.realpath(path), spec)
        if spec.low_latency:
            with contextlib.suppress(ValueError):  # not every driver has it, and none needs it
                device.set_low_latency_mode(True)
        return Port(device, path)
    except (OSError, termios.error, ValueError) as error:
        device.close()
        raise _unavailable(path, error) from error


def _configure(device: serial.Serial, spec: SerialSpec) -> None:
    device.baudrate, device.bytesize = spec.baud_rate, spec.data_bits
    device.parity, device.stopbits = _PARITY[spec.parity], spec.stop_bits
    device.xonxoff, device.rtscts, device.dsrdtr = spec.xonxoff, spec.rtscts, spec.dsrdtr
    device.dtr, device.rts = spec.dtr is not False, spec.rts is not False
    if spec.rs485 is not None:
        device.rs485_mode = _rs485(spec.rs485)


def _rs485(settings: Rs485) -> serial.rs485.RS485Settings:
    return serial.rs485.RS485Settings(
        rts_level_for_tx=settings.rts_level_for_tx,
        rts_level_for_rx=settings.rts_level_for_rx,
        loopback=settings.loopback,
        delay_before_tx=settings.delay_before_tx,
        delay_before_rx=settings.delay_before_rx,
    )


def _finish_settings(fd: int, real_path: str, spec: SerialSpec) -> None:
    """What pyserial leaves open: hang-up on close, breaks, what an empty read means, the kernel's own lock."""
    attributes = termios.tcgetattr(fd)
    # A break with BRKINT would empty the kernel's buffer; without it, it reads as a zero byte.
    attributes[0] &= ~termios.BRKINT
    attributes[2] &= ~termios.HUPCL
    if spec.hangup_on_close:
        attributes[2] |= termios.HUPCL
    # With VMIN 1 "no data" is EAGAIN, so that a read of zero bytes can only mean a hang-up.
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    # The flag outlives a pty's last close, so after a crash nobody but root could open it again: flock has to do there.
    if not real_path.startswith(_PTYS):
        fcntl.ioctl(fd, termios.TIOCEXCL)


def _unavailable(path: str, error: Exception) -> SourceUnavailable:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return SourceUnavailable(
            "locked by another program", where=path, fix=f"stop it ({_holder(path)}); still trying"
        )
    if number in (errno.EACCES, errno.EPERM):
        return SourceUnavailable("permission denied", where=path, fix=_permission_fix(path))
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return SourceUnavailable("no device behind this name", where=path, fix="plug it in, or see /dev/serial/by-id")
    return SourceUnavailable(f"cannot be set up: {error}", where=path, fix="is it a serial port, with these settings?")


def _holder(path: str) -> str:
    """Who has the lock, as far as /proc tells."""
    with contextlib.suppress(OSError, IndexError):
        inode = os.stat(path).st_ino
        with open("/proc/locks") as locks:
            rows = [line.split() for line in locks if "FLOCK" in line]
        return next((f"process {row[4]}" for row in rows if row[5].endswith(f":{inode}")), "see fuser " + path)
    return "see fuser " + path


def _permission_fix(path: str) -> str:
    group = "dialout"
    with contextlib.suppress(OSError, KeyError):
        owner = os.stat(path).st_gid
        group = grp.getgrgid(owner).gr_name if owner else group
    return f"add the user that runs this to the group {group} (usermod -aG {group} USER) and start it again"


class Port:
    """An open port. One task reads, one task writes."""

    def __init__(self, device: serial.Serial, path: str) -> None:
        """Takes over `device`, which is open. `path` is the name it was found under."""
        self.path = path
        self.real_path = os.path.realpath(path)
        self._device = device
        self._fd: int = device.fd
        self._loop = asyncio.get_running_loop()
        # The descriptor is watched through an epoll of our own: uvloop and asyncio report a hang-up differently, and
        # neither reports one on a descriptor that nobody reads at the moment.
        self._poll = select.epoll()
        self._interest = 0
        self._poll.register(self._fd, 0)
        self._loop.add_reader(self._poll.fileno(), self._on_events)
        self._waiters: dict[int, asyncio.Future[bool]] = {}
        self._gone = False
        self._when_gone: Callable[[], Any] = lambda: None
        self._errors = self._icount()

    async def read(self, silence_s: float | None = None) -> bytes | None:
        """What has come, at least one byte; None when nothing came for `silence_s`. Raises PortLost."""
        while await self._ready(select.EPOLLIN, silence_s):
            try:
                data = os.read(self._fd, READ_BYTES)
            except (BlockingIOError, InterruptedError):
                if self._gone:
                    raise PortLost("hung up") from None
                continue
            except OSError as error:
                self._lost()
                raise PortLost(f"read: {os.strerror(error.errno or 0)}") from error
            if not data:
                self._lost()
                raise PortLost("hung up")
            return data
        return None

    async def write(self, data: bytes, timeout_s: float) -> None:
        """Hand all of `data` to the driver. Raises PortLost, or TimeoutError when flow control holds it back: then what
        has not been sent is dropped."""
        deadline = self._loop.time() + timeout_s
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except (BlockingIOError, InterruptedError):
                if self._gone:
                    raise PortLost("hung up") from None
                if not await self._ready(select.EPOLLOUT, max(0.0, deadline - self._loop.time())):
                    self._drop_unsent()
                    raise TimeoutError from None
            except OSError as error:
                self._lost()
                raise PortLost(f"write: {os.strerror(error.errno or 0)}") from error

    async def while_present(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something else, but not longer than the device is there. Raises PortLost."""
        async with asyncio.TaskGroup() as tasks:
            self._when_gone = tasks.create_task(waiting, name=f"waiting:{self.path}").cancel
            if self._gone:
                self._when_gone()
        self._when_gone = lambda: None
        if self._gone:
            raise PortLost("hung up")

    @property
    def unsent(self) -> int:
        """Bytes that the driver has taken and not sent. A pty has none."""
        with contextlib.suppress(OSError):
            return int(_INT.unpack(fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(_INT.size)))[0])
        return 0

    def line_errors(self) -> dict[str, int]:
        """Framing, parity, overrun and break errors that the driver counted since the last call; maybe none."""
        now, before = self._icount(), self._errors
        self._errors = now
        return {name: now[at] - before[at] for at, name in _LINE_ERRORS.items() if now and now[at] != before[at]}

    def close(self) -> None:
        """Give the port back. What the driver has not sent is dropped: waiting for it here could block for 30 s."""
        if self._poll.closed:
            return
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()
        self._drop_unsent()
        self._device.close()

    def _drop_unsent(self) -> None:
        # Asked first: on a pty this flush would take from the other side what it has not read yet.
        if self.unsent:
            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCOFLUSH)

    async def _ready(self, event: int, timeout_s: float | None) -> bool:
        """True once `event` (or the loss of the device) has happened, False after `timeout_s`."""
        if self._gone:
            return True
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[event] = future
        self._watch(self._interest | event)
        timer = None if timeout_s is None else self._loop.call_later(timeout_s, _settle, future, False)
        try:
            return await future
        finally:
            del self._waiters[event]
            if timer:
                timer.cancel()

    def _on_events(self) -> None:
        for _, events in self._poll.poll(0):
            if events & _GONE:
                self._lost()
                return
            for event in (select.EPOLLIN, select.EPOLLOUT):
                if events & event:
                    self._wake(event)

    def _wake(self, event: int) -> None:
        waiter = self._waiters.get(event)
        if waiter is None:
            # Nobody reads now. Stop hearing of it, or this would be called again without end.
            self._watch(self._interest & ~event)
        else:
            _settle(waiter, True)

    def _watch(self, interest: int) -> None:
        if interest != self._interest and not self._gone:
            self._interest = interest
            self._poll.modify(self._fd, interest)

    def _lost(self) -> None:
        """A hang-up stays readable for ever, so it is heard once."""
        if self._gone:
            return
        self._gone = True
        self._loop.remove_reader(self._poll.fileno())
        for waiter in self._waiters.values():
            _settle(waiter, True)
        self._when_gone()

    def _icount(self) -> tuple[int, ...]:
        try:
            return _ICOUNT.unpack(fcntl.ioctl(self._fd, _TIOCGICOUNT, bytes(_ICOUNT.size)))
        except OSError:
            return ()


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
