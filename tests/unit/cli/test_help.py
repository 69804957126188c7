"""The command line: help that names every command, and one line for each misuse."""

from __future__ import annotations

import pytest

from app import __version__
from app.__main__ import COMMANDS, main


def test_help_names_every_command_and_needs_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert main([]) == 2
    assert "usage: changewire" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "instances", "streams", "watchers"])
def test_help_of_each_command_made_with_typer(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: changewire {command}" in printed
    assert "Exit codes: 0 " in printed


@pytest.mark.parametrize("command", ["serve", "demo", "openapi"])
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: changewire {command}" in printed
    assert command == "openapi" or "Exit codes: 0 after" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"changewire {__version__}\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serv"]) == 2
    assert capsys.readouterr().err == "changewire: there is no command serv; did you mean serve?\n"
    assert main(["xyz"]) == 2
    assert "commands: serve, demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--cofnig"], ["serve", "x"], ["demo", "--rate", "0"], ["demo", "--rate", "nan"],
     ["demo", "--port", "65536"], ["demo", "--port", "1.5"], ["demo", "--for", "-1"], ["demo", "--for", "soon"],
     *(["demo", "--watchers", each] for each in ("0", "-1", "100000", "x", "1.5")), ["openapi", "x"]],
)  # fmt: skip
def test_misuse_is_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"changewire {arguments[0]}: ")
    assert said[0].endswith(f"; see changewire {arguments[0]} --help")


def test_misplaced_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said == "changewire: there is no option --port; write options after the command; see changewire --help\n"
