"""Finding what a worker left, among real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from agent.processor.leftovers import MARK, end_leftovers
from shmem.segment import Segment
from tests.support.eventually import eventually, wait_until
from tests.support.processor import running

# Starts two sleepers in sessions of their own, one of them below the other, and ends: both fall to init.
LEAVES = """
import os, sys, subprocess
inner = "import os, subprocess, sys, time; p = subprocess.Popen(['sleep', '100'], start_new_session=True, env={}); " \
        "open(sys.argv[1], 'w').write(f'{os.getpid()} {p.pid}'); time.sleep(100)"
subprocess.Popen([sys.executable, "-c", inner, sys.argv[1]], start_new_session=True)
"""


def test_what_carries_the_mark_ends_with_all_below_it_and_nothing_else(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "100"], start_new_session=True, env={**os.environ, MARK: "another"})
    try:
        name = Segment(4096)
        worker = subprocess.Popen(
            [sys.executable, "-c", LEAVES, str(tmp_path / "pids")], start_new_session=True, env={MARK: name.name}
        )
        worker.wait()
        pids = wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split())
        assert end_leftovers(worker.pid, name.name) == 2
        wait_until(lambda: not any(alive(int(pid)) for pid in pids))
        assert alive(bystander.pid)
        assert end_leftovers(worker.pid, name.name) == 0
        name.close()
    finally:
        bystander.kill()
        bystander.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


async def test_looking_leaves_no_thread(tmp_path: Path) -> None:
    async with running(tmp_path, "import os\ndef handler(context, event):\n    os._exit(1)\n") as f:
        before = threading.active_count()
        await f.call()
        await eventually(lambda: f.workers())
        assert threading.active_count() == before
