"""Where `headrace run` keeps what others could meddle with."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.cli import run
from agent.model.errors import CommandError


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
