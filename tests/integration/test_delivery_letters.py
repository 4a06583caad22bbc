"""`headrace dead-letters` on the store of a function that runs, and of one that does not."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from agent.cli.main import main
from tests.integration.test_delivery import RECORD, bodies, counters, rows
from tests.support.eventually import eventually
from tests.support.processor import RunningProcessor, running

KEYS = {"delivery": "at-least-once", "maxAttempts": 2, "retryDelay": "5ms"}


async def fail(f: RunningProcessor, count: int) -> None:
    for number in range(count):
        outcome = await f.call(b"%d" % number, deliver=True, topic="a/b", headers=[("k", "v")], path=b"\xff")
        assert not outcome.ok


async def command(*words: object) -> int:
    """In a thread, as another process would: the function goes on meanwhile."""
    return await asyncio.to_thread(main, ["dead-letters", *map(str, words)])


async def test_list_and_show_tell_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await fail(f, 3)
        assert await command("list", tmp_path) == 0
        table = capsys.readouterr().out.splitlines()
        assert len(table) == 4
        assert "told to" in table[1]
        assert await command("show", tmp_path, 2) == 0
        shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["trigger"], shown["attempts"], shown["status"]) == (2, "t", 2, 500)
    assert shown["event"]["body"] == "1"
    assert shown["event"]["topic"] == "a/b"
    assert shown["event"]["headers"] == [["k", "v"]]
    assert shown["event"]["path"] == {"base64": "/w=="}
    assert shown["received"] <= shown["failed"]


async def test_replay_while_the_function_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await fail(f, 3)
        (tmp_path / "seen").unlink()
        assert await command("replay", tmp_path, 1) == 0
        assert "1 to be handled again now" in capsys.readouterr().out
        await eventually(lambda: rows(tmp_path, "SELECT attempts, replay FROM dead_letters WHERE id = 1") == [(4, 0)])
        (tmp_path / "fail").unlink()
        assert await command("replay", tmp_path, "--all") == 0
        await eventually(lambda: rows(tmp_path, "SELECT count(*) FROM dead_letters") == [(0,)])
        assert counters(f)["dead_letters_replayed"] == 3
        assert sorted(bodies(tmp_path)) == ["0", "0", "0", "1", "2"]


async def test_replay_while_the_function_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await asyncio.gather(*(f.call(b"%d" % number, deliver=True) for number in range(50)))
    (tmp_path / "fail").unlink()
    (tmp_path / "seen").unlink()
    assert await command("replay", tmp_path, "--all") == 0
    assert "when the function starts" in capsys.readouterr().out
    async with running(tmp_path, RECORD, **KEYS):
        await eventually(lambda: rows(tmp_path, "SELECT count(*) FROM dead_letters") == [(0,)])
    assert sorted(bodies(tmp_path), key=int) == [str(n) for n in range(50)]


async def test_a_replayed_letter_runs_although_its_id_is_known(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    once = {"delivery": "effectively-once", "idFrom": "header:id", "maxAttempts": 1}
    async with running(tmp_path, RECORD, **once) as f:
        assert not (await f.call(b"x", deliver=True, headers=[("id", "1")])).ok
        assert (await f.call(b"x", deliver=True, headers=[("id", "1")])).ok  # known: not run, not buried again
        assert counters(f) == {"dead_letters": 1, "duplicates": 1}
        (tmp_path / "fail").unlink()
        assert await command("replay", tmp_path, "--all") == 0
        await eventually(lambda: bodies(tmp_path) == ["x", "x"])


async def test_export_and_purge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await fail(f, 4)
        output = tmp_path / "out.jsonl"
        assert await command("export", tmp_path, "--output", output) == 0
        assert [json.loads(line)["event"]["body"] for line in output.read_text().splitlines()] == ["0", "1", "2", "3"]
        assert os.stat(output).st_mode & 0o077 == 0
        assert await command("purge", tmp_path, 1, 3) == 0
        assert await command("purge", tmp_path, "--older-than", "1h") == 0
        capsys.readouterr()
        assert await command("list", tmp_path, "--json") == 0
        assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [2, 4]
        assert await command("purge", tmp_path, "--all", "--trigger", "other") == 0
    assert await command("purge", tmp_path, "--all") == 0
    assert rows(tmp_path, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["replay", "F"], "which ones?"),
        (["purge", "F"], "which ones?"),
        (["show", "F", "99"], "no dead letter 99"),
        (["purge", "F", "--older-than", "old"], "no duration"),
        (["list", "no/such/folder"], "nothing was ever kept here"),
        (["list", "nobody", "--state-dir", "/nowhere"], "nothing was ever kept here"),
    ],
)
async def test_what_cannot_be_done_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await fail(f, 1)
        assert await command(*(str(tmp_path) if word == "F" else word for word in words)) == 1
    assert text in capsys.readouterr().err


async def test_by_the_name_of_the_function_below_the_agents_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fail").touch()
    async with running(tmp_path, RECORD, **KEYS) as f:
        await fail(f, 1)
    place = tmp_path / "agent" / "functions" / "f"
    place.mkdir(parents=True)
    (place / "state").symlink_to(tmp_path / "state")
    assert await command("list", "f", "--state-dir", tmp_path / "agent") == 0
    assert "told to" in capsys.readouterr().out
