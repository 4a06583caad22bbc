"""A real Python worker process with the processor's end of its channel in the test."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from agent.model.spec import EnvironmentVariable, Function, FunctionSpec, Metadata
from runtimes.python import runtime
from shmem import _channel
from shmem.segment import Segment
from tests.support.eventually import wait_until

Record = tuple[int, int, int, int, str, list[tuple[str, str]], bytes]


class PythonWorker:
    """Started by `with`; leaving it kills and reaps the worker and removes its segment."""

    def __init__(
        self,
        code_dir: Path,
        handler: str = "main:handler",
        *,
        in_flight: int = 1,
        env: dict[str, str] | None = None,
        interpreter: str = "",
        ring_bytes: int = 1 << 18,
        **worker: Any,
    ) -> None:
        self.code_dir = code_dir
        self.ring_bytes = ring_bytes
        self.records: list[Record] = []
        self._next_id = 0
        variables = [EnvironmentVariable(name=name, value=value) for name, value in (env or {}).items()]
        spec = FunctionSpec(handler=handler, runtime="python", env=variables)
        self._launch = runtime.launch(Function(metadata=Metadata(name="f"), spec=spec), code_dir)
        self._argv = (interpreter or self._launch.argv[0], *self._launch.argv[1:])
        self._worker = {
            "handler": handler,
            "worker_id": "0",
            "trigger_kind": "http",
            "trigger_name": "t",
            "function": "f",
            "namespace": "default",
            "in_flight": in_flight,
            "code_dir": str(code_dir),
            "calls_dir": str(code_dir / "calls"),
            "parent_pid": os.getpid(),
            "log_level": "debug",
            "batch": False,
        } | worker

    def __enter__(self) -> PythonWorker:
        header = _channel.HEADER_BYTES
        self._segment = Segment(header + 2 * self.ring_bytes)
        event_read, event_write = os.pipe()
        reply_read, reply_write = os.pipe()
        os.set_blocking(reply_read, False)
        os.set_blocking(event_write, False)
        self._descriptors = [event_write, reply_read]
        self.channel = _channel.ProcessorChannel(
            self._segment.buffer, self._segment.name, self.ring_bytes, self.ring_bytes, event_write, reply_read, 0x1234
        )
        self._output: IO[str] = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self._argv,
            env={**self._launch.env, **self._variables(event_read, reply_write)},
            cwd=self.code_dir,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(event_read, reply_write),
        )
        os.close(event_read)
        os.close(reply_write)
        return self

    def _variables(self, event_fd: int, reply_fd: int) -> dict[str, str]:
        return {
            "HEADRACE_SEGMENT": self._segment.name,
            "HEADRACE_EVENT_FD": str(event_fd),
            "HEADRACE_REPLY_FD": str(reply_fd),
            "HEADRACE_WORKER": json.dumps(self._worker),
        }

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()
        self.hang_up()
        self.channel.close()
        self._segment.close()

    def hang_up(self) -> None:
        """What the worker sees when its processor dies."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    @property
    def output(self) -> str:
        """What the worker has printed."""
        self._output.seek(0)
        return self._output.read()

    def put(
        self,
        body: bytes = b"",
        *,
        content_type: str = "",
        headers: tuple[tuple[str | bytes, str | bytes], ...] = (),
        fields: bytes = b"",
        method: str = "POST",
        path: str = "/",
        flags: int = 0,
        event_id: str = "",
    ) -> int:
        """Put an event; its number."""
        self._next_id += 1
        texts = (content_type, method, path, "", "", event_id, "", "", "", "http", "t")
        put = self.channel.put_event(self._next_id, flags, time.time_ns(), 0, -1, 0, texts, headers, fields, body)
        assert put, "no room in the ring"
        return self._next_id

    def wait_for(self, kind: int, id: int = 0, within_s: float = 20.0) -> Record:
        """The next record of that kind (and event). Others stay in `records`."""

        def find() -> Record | None:
            ended = self.process.poll() is not None
            self.records += self.channel.drain()
            for index, record in enumerate(self.records):
                if record[0] == kind and id in (0, record[1]):
                    return self.records.pop(index)
            assert not ended, f"worker ended with {self.process.returncode}: {self.output}"
            return None

        found: Record = wait_until(find, within_s, 0.0005)
        return found

    def wait_ready(self) -> None:
        self.wait_for(_channel.READY)

    def call(self, body: bytes = b"", **event: Any) -> Record:
        """Put an event and wait for its reply."""
        return self.wait_for(_channel.REPLY, self.put(body, **event))
