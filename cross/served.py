"""The whole project on an emulated device: installed from its wheelhouse, then one function answers one HTTP request.

`python -m cross.served [TARGET...]`, after `cross.wheelhouse`. It shows that everything installs, starts, forks workers
and talks through the channel there. Times under emulation say nothing about those of a device.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

from cross.emulate import inside, missing
from cross.run_tests import carry_out, prepare
from cross.targets import Target, chosen
from cross.wheelhouse import wheelhouse

_FUNCTION = """
import platform

def handler(context, event):
    return f"{platform.machine()} got {event.body.decode()}"
"""
_START_S = 120


def installed(target: Target) -> str:
    """A virtual environment made by the device's own Python and pip. Returns what pip lists."""
    root = target.userland
    shutil.rmtree(root / "opt" / "headrace", ignore_errors=True)
    shutil.copytree(wheelhouse(target), root / "opt" / "wheels", dirs_exist_ok=True)
    carry_out(inside(target, "python3", "-m", "venv", "/opt/headrace"))
    install = ["install", "-q", "--no-index", "--find-links", "/opt/wheels"]
    # pyzmq has no wheel for 32 bits, and pip installs all or nothing: there the wheels are named one by one.
    wheels = sorted(f"/opt/wheels/{path.name}" for path in wheelhouse(target).glob("*.whl"))
    whole = any("pyzmq" in wheel for wheel in wheels)
    what = ["headrace"] if whole else ["--no-deps", *wheels]
    # What pip on such a device takes itself for; an armv6 build is tested in an armv7 userland.
    env = {"_PYTHON_HOST_PLATFORM": f"linux-{target.machine}"}
    carry_out(inside(target, "/opt/headrace/bin/pip", *install, *what, env=env))
    shutil.rmtree(root / "opt" / "wheels")
    return f"{len(wheels)} wheels"


def served(target: Target) -> str:
    """`headrace run` of a function in a file; one request. Returns the answer."""
    (target.userland / "tmp" / "hello.py").write_text(_FUNCTION)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = inside(target, "/opt/headrace/bin/headrace", "run", "/tmp/hello.py", "--port", str(port))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = _address(process)
            request = urllib.request.Request(address, data=b"one event", method="POST")
            with urllib.request.urlopen(request, timeout=_START_S) as answer:
                return str(answer.read().decode())
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    """From the log, which says it once the source is up."""
    said = []
    for line in process.stderr or ():
        said.append(line)
        if found := re.search(r"address=(http\S+)", line):
            return found[1]
    raise SystemExit("headrace run ended before it served:\n" + "".join(said))


STEPS: tuple[Callable[[Target], str], ...] = (installed, served)


def main(names: list[str]) -> int:
    """0 when every chosen target answered."""
    for target in chosen(names):
        lack = missing(target)
        if lack:
            raise SystemExit(f"{target.name}: {lack}")
        prepare(target)
        for step in STEPS:
            started = time.monotonic()
            print(f"{target.name}: {step.__name__}: {step(target)} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
