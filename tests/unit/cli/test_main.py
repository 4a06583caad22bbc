"""The shell around every command: help, errors as one line, exit codes."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from types import ModuleType

import pytest

from agent.cli import main as shell
from agent.cli.main import COMMANDS, Command, main
from agent.model.errors import AgentError, SpecError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command `probe` whose `run` a test replaces."""
    module = ModuleType("probe_command")
    module.add_arguments = lambda parser: parser.add_argument("--code", type=int, default=0)  # type: ignore[attr-defined]
    module.run = lambda args: args.code  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_command", module)
    probe = Command("probe", "probe_command", "probes", "headrace probe")
    monkeypatch.setattr(shell, "COMMANDS", (*COMMANDS, probe))
    return module


def test_help_shows_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(item.name in text and item.example in text for item in COMMANDS)
        assert len(text.splitlines()) < 30


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    assert capsys.readouterr().err.startswith("headrace: no command 'rnu'; there are run, ")


def test_exit_code_and_usage(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe"]) == 0
    assert main(["probe", "--code", "7"]) == 7
    assert main(["probe", "--code", "x"]) == 2
    assert "usage: headrace probe" in capsys.readouterr().err
    assert main(["probe", "--help"]) == 0
    assert "Probes." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (AgentError("broken", where="here", fix="mend it"), 1, "headrace: here: broken; mend it\n"),
        (SpecError("wrong"), 2, "headrace: wrong\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line(
    command: ModuleType, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    command.run = run  # type: ignore[attr-defined]
    assert main(["probe"]) == code
    assert capsys.readouterr() == ("", says)


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    main(["rnu"])
    assert "\x1b[31m" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    main(["rnu"])
    assert "\x1b" not in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_reader_that_leaves_is_no_error() -> None:
    """`headrace schema | head -c 1`: quiet, even when the interpreter ends."""
    code = "import sys; from agent.cli.main import main; sys.exit(main(['schema']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), complaint) == (141, b"")


def test_help_imports_no_command() -> None:
    code = "import sys; from agent.cli.main import main; main([]); print([m for m in sys.modules if m in %r])"
    heavy = ["msgspec", "loguru", "ruamel.yaml", "asyncio", "agent.model.load", "zmq", "uvloop"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count("headrace ") == 2
