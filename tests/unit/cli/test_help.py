"""The command line: help that names every command, and one line for each misuse, by one parser for all commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.__main__ import main
from app.cli import program, serve
from app.cli.program import COMMANDS


def all_commands() -> Iterator[tuple[str, ...]]:
    """Every command, and every command of a command."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
            yield from below(command.get_command(None, name), (*path, name))

    return below(program.tree(), ())


@pytest.mark.parametrize("asked", [("--help",), ("-h",), ("help",)])
def test_help_names_every_command(asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Usage: changewire ")
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert "Exit codes: 0 success" in printed


@pytest.mark.parametrize("path", list(all_commands())[1:], ids=" ".join)
def test_help_of_every_command_has_one_look(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "-h"]) == 0
    first = capsys.readouterr().out
    assert main(["help", *path]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith(f"Usage: changewire {' '.join(path)} ")
    assert "  -h, --help " in first
    assert len(path) > 1 or "Exit codes: 0 " in first
    for line in first.partition("Options:\n")[2].partition("\n\n")[0].splitlines():
        if line.startswith("  -"):
            assert "<" not in line or "|" in line, f"a value that is named by its type: {line}"


@pytest.mark.parametrize("group", [(), ("watchers",), ("streams",)])
def test_without_a_command_the_help_says_which_there_are(
    group: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*group]) == 2
    said, errors = capsys.readouterr()
    assert said == ""
    assert errors.startswith("Usage: changewire ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("--version", "-V"):
        assert main([asked]) == 0
        assert capsys.readouterr().out == f"changewire {__version__}\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serv"]) == 2
    said = "changewire: no such command 'serv' (did you mean 'serve'?); see changewire --help\n"
    assert capsys.readouterr().err == said
    assert main(["xyz"]) == 2
    assert capsys.readouterr().err == "changewire: no such command 'xyz'; see changewire --help\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["serve", "--cofnig"], "no such option: --cofnig (did you mean --config?)"),
     (["serve", "x"], "got unexpected extra argument"), (["serve", "--config"], "option '--config' requires"),
     (["demo", "--rate", "0"], "must be a number from 0.01 to 5000"),
     (["demo", "--rate", "nan"], "must be a number from 0.01 to 5000"),
     (["demo", "--port", "65536"], "must be a number from 0 to 65535"), (["demo", "--port", "1.5"], "must be a number"),
     (["demo", "--for", "-1"], "must be a number"), (["demo", "--for", "soon"], "must be a number"),
     (["openapi", "x"], "got unexpected extra argument"), (["doctor", "--jsn"], "no such option: --jsn"),
     (["verify"], "missing argument 'WATCHER'"), (["verify", "x", "--since", "noon"], "must be a time with an offset"),
     (["verify", "x", "--since", "2026-01-01T00:00:00Z", "--writes", "f"], "give either --since or --writes"),
     (["watchers", "lst"], "no such command 'lst' (did you mean 'list'?)"),
     (["streams", "switch", "X"], "missing option '--to'. Choose from: changewire, connector"),
     (["watchers", "list", "--state", "odd"], "invalid value for '--state': 'odd' is not one of 'starting', 'running'"),
     (["watchers", "tail", "x", "-n", "0"], "invalid value for '--count' / '-n': must be at least 1"),
     (["watchers", "dead-letters", "x", "show", "y"], "invalid value for 'SEQUENCE': must be a whole number; see"),
     (["completion", "tcsh"], "invalid value for 'SHELL': 'tcsh' is not one of")],
)  # fmt: skip
def test_misuse_is_two_in_one_line_of_the_same_words(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"changewire {arguments[0]}")
    assert said in lines[0]
    assert lines[0].endswith(" --help")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../healthz"])
def test_what_is_no_name_of_a_watcher_reaches_no_service(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watchers", "pause", name]) == 2
    assert (
        capsys.readouterr().err == f"changewire: there is no watcher {name!r}: a name is not empty and has no slash\n"
    )


def test_misplaced_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said == "changewire: no such option: --port; write options after the command; see changewire --help\n"


@pytest.mark.parametrize(
    ("arguments", "plain"),
    [([], {}), (["--config", "x.yaml"], {"config": Path("x.yaml")}), (["--config=x.yaml"], None), (["--help"], None),
     (["--config", "--help"], None), (["--config"], None), (["x"], None), (["--config", "x", "y"], None)],
)  # fmt: skip
def test_a_plain_start_needs_no_parser_and_anything_else_is_parsed(
    arguments: list[str], plain: dict[str, Path] | None
) -> None:
    assert serve.without_parser(arguments) == plain


@pytest.mark.parametrize("arguments", [["--config", "x.yaml"], ["--config=x.yaml"]])
def test_both_ways_serve_the_same(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path | None] = []

    def run(config: Path | None = None) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(serve, "run", run)
    assert main(["serve", *arguments]) == 0
    assert program.run(["serve", *arguments]) == 0
    assert seen == [Path("x.yaml")] * 2
