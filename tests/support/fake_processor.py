"""A processor that speaks the link protocol and has no workers: `python fake_processor.py DIR`.

It behaves as the function's environment variables in `processor.yaml` say: FAIL=<exit code> at start, UNREADY=1 (never
ready), CRASH_S=<seconds after go>, SLOW_DRAIN_S=<seconds>, DEAF=1 (ignores release and SIGTERM),
NONSENSE=1 (on the link), CHILD=1 (leaves a process of its own), ANSWER=<text>.
Standard library only, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

link = socket.socket(fileno=int(os.environ["HEADRACE_AGENT_FD"]))
stopped = threading.Event()


def say(**message: Any) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def listeners() -> dict[str, list[socket.socket]]:
    found: dict[str, list[socket.socket]] = {}
    for item in filter(None, os.environ["HEADRACE_LISTEN"].split(",")):
        trigger, _, descriptor = item.rpartition(":")
        found.setdefault(trigger, []).append(socket.socket(fileno=int(descriptor)))
    return found


def serve(listener: socket.socket, answer: str) -> None:
    listener.settimeout(0.05)
    while not stopped.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.recv(65536)
            body = f"{answer} {os.getpid()}".encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
    listener.close()


def go(trigger: str, sockets: list[socket.socket], answer: str) -> None:
    threads = [threading.Thread(target=serve, args=(item, answer), daemon=True) for item in sockets]
    for thread in threads:
        thread.start()
    address = ""
    if sockets and sockets[0].family == socket.AF_INET:
        address = "http://{}:{}".format(*sockets[0].getsockname())
    say(event="serving", trigger=trigger, address=address)


def main() -> None:
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "processor.yaml").read_text())["spec"]
    env = {item["name"]: item.get("value", "") for item in spec.get("env", [])}
    if "CHILD" in env:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    if "FAIL" in env:
        say(event="failed", code="function", what="told to fail")
        sys.exit(int(env["FAIL"]))
    if "NONSENSE" in env:
        link.sendall(b"hello?\n")
        time.sleep(600)
    if "DEAF" in env:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "UNREADY" not in env:
        say(event="ready")
    inherited, running = listeners(), []
    for line in link.makefile("r"):
        command = json.loads(line)
        if command["command"] == "go":
            for trigger in command["triggers"]:
                running.append(trigger)
                go(trigger, inherited.get(trigger, []), env.get("ANSWER", "hello"))
            if "CRASH_S" in env:
                time.sleep(float(env["CRASH_S"]))
                os._exit(3)
        elif command["command"] == "statistics":
            counted = {name: {"handled": 7, "failed": 1, "counters": {"dropped": 2}} for name in running}
            say(event="statistics", id=command["id"], statistics={"triggers": counted})
        elif command["command"] == "release" and "DEAF" not in env:
            break
    if "DEAF" in env:
        time.sleep(600)
    stopped.set()
    time.sleep(0.1)
    for trigger in running:
        try:
            say(event="released", trigger=trigger)
        except OSError:
            break
    time.sleep(float(env.get("SLOW_DRAIN_S", "0")))


main()
