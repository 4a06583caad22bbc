"""Where `headrace run` keeps what others could meddle with, and what it says of addresses that it does not get."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.cli import run
from agent.model.errors import CommandError
from agent.model.listen import Address
from agent.model.load import load_text
from agent.model.spec import Function


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, to which everybody may write."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(run.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"headrace-{os.getuid()}"


def test_calls_go_through_a_folder_of_our_own(temporary: Path) -> None:
    for _ in range(2):  # made, then found
        folder = run._default_calls_dir()
        assert folder == temporary / "headrace-calls"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (temporary, folder)] == [0o700, 0o700]


def test_a_folder_that_others_may_write_to_is_refused(temporary: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(CommandError, match=r"headrace-\d+: other users may write .* --calls-dir"):
        run._default_calls_dir()
    temporary.chmod(0o755)  # as it was made once: nobody can have put anything there
    run._default_calls_dir()
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


def test_a_link_or_a_file_in_its_place_is_refused(temporary: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    temporary.symlink_to(elsewhere)
    with pytest.raises(CommandError, match="no folder"):
        run._default_calls_dir()
    temporary.unlink()
    temporary.touch()
    with pytest.raises(CommandError, match="no folder"):
        run._default_calls_dir()


def test_somebody_elses_folder_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary.mkdir(0o700)
    real = os.lstat

    def of_another(path: Path) -> os.stat_result:
        status = list(real(path))
        status[stat.ST_UID] += 1
        return os.stat_result(status)

    monkeypatch.setattr(os, "lstat", of_another)
    with pytest.raises(CommandError, match=r"another user.*--calls-dir"):
        run._default_calls_dir()


def function(trigger: str) -> Function:
    text = f"metadata: {{name: lamp}}\nspec: {{runtime: python, handler: main:handler, triggers: {{{trigger}}}}}\n"
    return load_text(text, "lamp.yaml").function


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


WEB = "web: {kind: http}"


def test_a_function_of_that_name_runs_already(tmp_path: Path, stack: ExitStack) -> None:
    run._listeners(function(WEB), None, tmp_path / "calls", stack)
    with pytest.raises(CommandError, match=r"named 'lamp' runs already.*--calls-dir"), ExitStack() as second:
        run._listeners(function(WEB), None, tmp_path / "calls", second)
    with ExitStack() as third:
        run._listeners(function(WEB), None, tmp_path / "other", third)


def test_what_a_killed_one_left_does_not_count(tmp_path: Path, stack: ExitStack) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "lamp.sock"))
    left.listen()
    left.close()
    assert (tmp_path / "lamp.sock").exists()
    run._listeners(function(WEB), None, tmp_path, stack)


def test_a_port_that_is_taken_names_its_holder(tmp_path: Path, stack: ExitStack) -> None:
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    with pytest.raises(CommandError, match=rf":{port}: it is taken by process {os.getpid()} .*--port"):
        run._listeners(function(WEB), port, tmp_path, stack)


def test_a_port_that_only_root_may_have(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(address: Address) -> socket.socket:
        if address.path:
            return socket.socket(socket.AF_UNIX)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run, "open_listener", refused)
    with pytest.raises(CommandError, match="Permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"):
        run._listeners(function(WEB), 80, tmp_path, stack)


def test_every_address_is_opened_and_no_path_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unix socket beside the port; the working directory changes meanwhile."""
    monkeypatch.chdir(tmp_path)
    both = "web: {kind: http, attributes: {port: 8080, socket: lamp.sock}}"
    with ExitStack() as opened:
        found = run._listeners(function(both), 0, tmp_path / "calls", opened)
        assert [item.family for item in found["web"]] == [socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX]
        assert (tmp_path / "lamp.sock").exists()
        monkeypatch.chdir(tmp_path / "calls")
    assert not (tmp_path / "lamp.sock").exists()
    assert os.listdir(tmp_path / "calls") == []


def test_what_somebody_else_put_in_its_place_stays(tmp_path: Path) -> None:
    with ExitStack() as opened:
        run._listeners(function(WEB), None, tmp_path, opened)
        (tmp_path / "lamp.sock").rename(tmp_path / "old.sock")
        (tmp_path / "lamp.sock").touch()
    assert (tmp_path / "lamp.sock").exists()
