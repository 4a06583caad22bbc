"""The real worker program, driven through a real channel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest

from shmem import _channel
from tests.support.eventually import wait_until
from tests.support.python_worker import PythonWorker

Write = Callable[[str], Path]


@pytest.fixture
def function(tmp_path: Path) -> Write:
    """Writes main.py; the function's folder."""
    folder = tmp_path / "function"
    folder.mkdir()

    def write(code: str) -> Path:
        (folder / "main.py").write_text(code)
        return folder

    return write


def interpreters() -> list[str]:
    """Ours and every other Python from 3.11 on that this machine has and that runs."""
    found = [sys.executable]
    patterns = ("*/bin/python3.1[1-9]",)
    candidates = [str(path) for pattern in patterns for path in Path.home().glob(f".pyenv/versions/{pattern}")]
    candidates += [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    seen = {sys.version_info[:2]}
    for path in candidates:
        program = "import sys; print(*sys.version_info[:2])"
        done = subprocess.run([path, "-c", program], capture_output=True, text=True)
        version = tuple(map(int, done.stdout.split()))
        if done.returncode == 0 and version not in seen:
            seen.add(version)  # type: ignore[arg-type]
            found.append(path)
    return found


EVERYTHING = """
import nuclio_sdk

def init_context(context):
    context.user_data.count = 0

def handler(context, event: nuclio_sdk.Event):
    context.user_data.count += 1
    context.logger.info_with("handled %d", context.user_data.count, path=event.path)
    print("printed", event.id)
    if event.path == "/raise":
        raise ValueError("no")
    if event.path == "/json":
        return {"seen": event.body, "worker": context.worker_id, "kind": event.trigger.kind}
    return context.Response(body=event.body[::-1], headers={"X-A": event.headers["X-A"]}, status_code=201,
                            content_type="text/x")
"""


@pytest.mark.parametrize("interpreter", interpreters())
@pytest.mark.parametrize("is_async", [False, True])
def test_a_function(function: Write, interpreter: str, is_async: bool) -> None:
    code = EVERYTHING.replace("def handler", "async def handler") if is_async else EVERYTHING
    with PythonWorker(function(code), interpreter=interpreter) as worker:
        worker.wait_ready()
        _, _, status, _, content_type, headers, body = worker.call(b"abc", headers=(("x-a", "1"),))
        assert (status, content_type, headers, body) == (201, "text/x", [("X-A", "1")], b"cba")
        log = worker.wait_for(_channel.LOG)
        assert (log[1], log[2], log[4]) == (1, 1, "handled 1")
        assert json.loads(log[6]) == {"path": "/", "worker_id": "0"}
        reply = worker.call(b'{"a": 1}', path="/json", content_type="application/json")
        assert reply[4] == "application/json"
        assert json.loads(reply[6]) == {"seen": {"a": 1}, "worker": "0", "kind": "http"}
        reply = worker.call(path="/raise")
        assert reply[2] == 500 and reply[6].startswith(b'Exception caught in handler - "no": Traceback')
        assert worker.output.count("printed") == 3
        worker.channel.put_control(_channel.STOP)
        assert worker.process.wait(10) == 0


def test_large_bodies(function: Write) -> None:
    with PythonWorker(function("def handler(context, event): return event.body + b'!'\n")) as worker:
        worker.wait_ready()
        for size in (0, 1, 60_000, 70_000, 3_000_000):
            body = os.urandom(size)
            assert worker.call(body)[6] == body + b"!"


def test_a_large_body_that_is_only_viewed_or_never_read(function: Write) -> None:
    code = "def handler(context, event): return event.body_view[-3:] if event.path == '/view' else 'unread'\n"
    with PythonWorker(function(code)) as worker:
        worker.wait_ready()
        assert worker.call(b"x" * 1_000_000 + b"end", path="/view")[6] == b"end"
        assert worker.call(b"x" * 1_000_000)[6] == b"unread"


def test_many_events_keep_their_order(function: Write) -> None:
    with PythonWorker(function("def handler(context, event): return event.body\n")) as worker:
        worker.wait_ready()
        for first in range(0, 2000, 100):
            ids = [worker.put(b"%d" % number) for number in range(first, first + 100)]
            assert [worker.wait_for(_channel.REPLY, id)[6] for id in ids] == [
                b"%d" % number for number in range(first, first + 100)
            ]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
        ("def other(context, event): ...\n", "it has: other"),
        ("def handler(:\n", "SyntaxError"),
        ("def handler(c, e): ...\ndef init_context(context): 1 / 0\n", "init_context failed: ZeroDivisionError"),
        ("async def handler(c, e): ...\nasync def init_context(context): 1 / 0\n", "init_context failed"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
    ],
)
def test_a_function_that_cannot_start(function: Write, code: str, reason: str) -> None:
    with PythonWorker(function(code)) as worker:
        text = worker.wait_for(_channel.FAILED)[6].decode()
        assert reason in text and "_worker" not in text
        assert worker.process.wait(10) == 1


COLLIDING = """
import agent, worker, event, shmem, runtime, replies
def handler(context, event):
    return ",".join(module.WHO for module in (agent, worker, globals()["event"], shmem, runtime, replies))
"""


def test_modules_of_the_user_never_collide_with_ours(function: Write) -> None:
    folder = function(COLLIDING)
    for name in ("agent", "worker", "event", "shmem", "runtime", "replies"):
        (folder / f"{name}.py").write_text("WHO = 'user'\n")
    for name in ("json", "struct", "signal", "contextlib", "nuclio_sdk"):  # also of the standard library
        (folder / f"{name}.py").write_text("raise RuntimeError('the worker imported a module of the function')\n")
    with PythonWorker(folder) as worker:
        worker.wait_ready()
        assert worker.call()[6] == b"user,user,user,user,user,user"


ENVIRONMENT = """
import json, os, subprocess, sys
def handler(context, event):
    child = "import os, helper; print(os.listdir('/proc/self/fd'), [n for n in os.environ if n.startswith('HEADRACE')])"
    program = [sys.executable, "-c", child]
    return {
        "path0": sys.path[0], "cwd": os.getcwd(), "name": os.environ["NUCLIO_FUNCTION_NAME"],
        "mine": os.environ["MINE"], "path": os.environ["PYTHONPATH"],
        "child": subprocess.run(program, capture_output=True, text=True).stdout,
        "ours": [n for n in os.environ if n.startswith("HEADRACE")],
    }
"""


def test_what_a_handler_and_its_children_see(function: Write) -> None:
    folder = function(ENVIRONMENT)
    (folder / "helper.py").touch()
    with PythonWorker(folder, env={"MINE": "yes", "PYTHONPATH": "/mine"}) as worker:
        worker.wait_ready()
        seen = json.loads(worker.call()[6])
    assert (seen["path0"], seen["cwd"], seen["name"], seen["mine"]) == (str(folder), str(folder), "f", "yes")
    assert seen["path"] == f"{folder}:/mine"
    assert seen["child"].strip() == "['0', '1', '2', '3'] []" and seen["ours"] == []


FORKING = """
import multiprocessing, os
def square(number):
    return number * number
def handler(context, event):
    if event.path == "/pool":
        with multiprocessing.get_context(event.body.decode()).Pool(2) as pool:
            return str(pool.map(square, [1, 2, 3]))
    pid = os.fork()
    if pid == 0:
        context.logger.error("from the child")
        os._exit(0)
    os.waitpid(pid, 0)
    return "parent"
"""


@pytest.mark.parametrize("method", [b"fork", b"spawn"])
def test_a_handler_may_start_processes(function: Write, method: bytes) -> None:
    with PythonWorker(function(FORKING)) as worker:
        worker.wait_ready()
        assert worker.call(method, path="/pool")[6] == b"[1, 4, 9]"
        assert worker.call()[6] == b"parent"
        assert "[error] from the child" in worker.output and not worker.records
        assert worker.call()[6] == b"parent"


def test_a_killed_worker_is_seen_and_leaves_nothing(function: Write) -> None:
    code = "import os, signal\ndef handler(context, event): os.kill(os.getpid(), signal.SIGKILL)\n"
    with PythonWorker(function(code)) as worker:
        worker.wait_ready()
        worker.put(b"x")
        assert worker.process.wait(10) == -signal.SIGKILL
        assert worker.channel.drain() == [] and worker.channel.awake() is False


CALLBACKS = """
import asyncio, time
def init_context(context):
    {define} done():
        {body}
        with open("ended", "a") as file:
            file.write("terminated")
    context.platform.set_termination_callback(done)
    context.platform.set_drain_callback(lambda: context.logger.info("draining"))
{handler} handler(context, event):
    return ""
"""


@pytest.mark.parametrize("handler", ["def", "async def"])
@pytest.mark.parametrize(("define", "body"), [("def", "time.sleep(0)"), ("async def", "await asyncio.sleep(0)")])
@pytest.mark.parametrize("how", ["stop", "hang up"])
def test_callbacks(function: Write, handler: str, define: str, body: str, how: str) -> None:
    folder = function(CALLBACKS.format(define=define, body=body, handler=handler))
    with PythonWorker(folder) as worker:
        worker.wait_ready()
        worker.channel.put_control(_channel.DRAIN)
        worker.wait_for(_channel.DRAINED)
        assert worker.wait_for(_channel.LOG)[4] == "draining"
        worker.call()
        if how == "stop":
            worker.channel.put_control(_channel.STOP)
        else:
            worker.hang_up()
        assert worker.process.wait(10) == 0
        assert (folder / "ended").read_text() == "terminated", worker.output


def test_ctrl_c_is_not_the_workers_business_and_sigterm_ends_it(function: Write) -> None:
    with PythonWorker(function("def handler(context, event): return 'x'\n")) as worker:
        worker.wait_ready()
        worker.process.send_signal(signal.SIGINT)
        assert worker.call()[6] == b"x"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == -signal.SIGTERM


SEVERAL = """
import asyncio
waiting, complete = [], asyncio.Event()
async def handler(context, event):
    if event.path == "/open":
        await complete.wait()
        for gate in waiting:
            gate.set()
        return "opened"
    gate = asyncio.Event()
    waiting.append(gate)
    if len(waiting) == 3:
        complete.set()
    await gate.wait()
    return event.body
"""


def test_several_events_in_flight(function: Write) -> None:
    with PythonWorker(function(SEVERAL), in_flight=4) as worker:
        worker.wait_ready()
        ids = [worker.put(b"%d" % number) for number in range(3)]
        worker.call(path="/open")
        assert [worker.wait_for(_channel.REPLY, id)[6] for id in ids] == [b"0", b"1", b"2"]


BACKGROUND = """
import asyncio
async def init_context(context):
    context.user_data.ticks = 0
    async def tick():
        while True:
            await asyncio.sleep(0.001)
            context.user_data.ticks += 1
    context.user_data.task = asyncio.create_task(tick())
def handler(context, event):
    return str(context.user_data.ticks)
"""


def test_background_tasks_go_on_while_the_worker_waits(function: Write) -> None:
    with PythonWorker(function(BACKGROUND)) as worker:
        worker.wait_ready()
        first = int(worker.call()[6])
        wait_until(lambda: int(worker.call()[6]) > first + 5)


def test_a_batch(function: Write) -> None:
    code = (
        "def handler(context, events):\n"
        "    return [context.Response(body=event.body + b'!', event_id=event.id) for event in events]\n"
    )
    with PythonWorker(function(code)) as worker:
        worker.wait_ready()
        more = _channel.BATCH | _channel.MORE
        ids = [worker.put(b"%d" % n, flags=more if n < 9 else _channel.BATCH) for n in range(10)]
        assert [worker.wait_for(_channel.REPLY, id)[6] for id in ids] == [b"%d!" % n for n in range(10)]
        assert worker.call(b"one", flags=_channel.BATCH)[6] == b"one!"


def test_texts_as_bytes(function: Write) -> None:
    code = "def handler(context, event): return event.headers[b'X-A'] + event.method\n"
    off = {"NUCLIO_PYTHON_DECODE_EVENT_STRINGS": "Disabled"}
    with PythonWorker(function(code), env=off) as worker:
        worker.wait_ready()
        assert worker.call(headers=((b"x-a", b"\xff"),))[6] == b"\xffPOST"


CALLER = """
import nuclio_sdk
def handler(context, event):
    response = context.platform.call_function(event.path[1:], nuclio_sdk.Event(body={"a": 1}, path="/in", method="PUT"))
    return {"status": response.status_code, "body": response.body, "headers": response.headers}
"""


class Listener(BaseHTTPRequestHandler):
    """Another function's HTTP listener."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen = {"path": self.path, "body": json.loads(body), "target": self.headers["X-Nuclio-Target"]}
        reply = json.dumps(seen).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None: ...

    def address_string(self) -> str:
        return "local"


@pytest.mark.parametrize("deep", [False, True])
def test_one_function_calls_another(function: Write, tmp_path: Path, deep: bool) -> None:
    calls = tmp_path / ("d" * 100 if deep else "c")  # longer than a socket's address can be
    calls.mkdir()
    here = os.getcwd()
    os.chdir(calls)
    try:
        server = UnixStreamServer("other.sock", Listener)
    finally:
        os.chdir(here)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with PythonWorker(function(CALLER), calls_dir=str(calls)) as worker:
            worker.wait_ready()
            seen = json.loads(worker.call(path="/other")[6])
            assert seen["status"] == 201
            assert seen["body"] == {"path": "/in", "body": {"a": 1}, "target": "other"}
            assert seen["headers"]["content-type"] == "application/json"
            reply = worker.call(path="/missing")
            assert reply[2] == 500 and b"no function 'missing' answers here" in reply[6] and b"other" in reply[6]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_kept_view_ends_the_worker_with_a_reason(function: Write) -> None:
    code = "kept = []\ndef handler(context, event):\n    kept.append(event.body_view)\n    return 'x'\n"
    with PythonWorker(function(code)) as worker:
        worker.wait_ready()
        assert worker.call(b"abc")[6] == b"x"
        assert worker.process.wait(10) == 1 and "body_view" in worker.output


def test_logs_from_threads(function: Write) -> None:
    code = """
import threading
def handler(context, event):
    threads = [threading.Thread(target=lambda: [context.logger.info("t") for _ in range(200)]) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return "done"
"""
    with PythonWorker(function(code), ring_bytes=1 << 16) as worker:
        worker.wait_ready()
        assert worker.call()[6] == b"done"
        assert sum(record[0] == _channel.LOG for record in worker.records) == 800


def test_a_worker_ends_with_its_parent(function: Write, tmp_path: Path) -> None:
    """A processor that is killed cannot clean up: the kernel does."""
    code = "import time\ndef handler(context, event): time.sleep(60)\n"
    program = f"""
import os, pathlib, sys
sys.path.insert(0, {os.getcwd()!r})
from tests.support.python_worker import PythonWorker
worker = PythonWorker(pathlib.Path({str(function(code))!r})).__enter__()
worker.wait_ready()
worker.put()
print(worker.process.pid, worker._segment.name, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid, segment = done.stdout.split()
    wait_until(lambda: has_ended(int(pid)))
    Path(f"/dev/shm/{segment}").unlink(missing_ok=True)


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that only waits for an init process to reap it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
