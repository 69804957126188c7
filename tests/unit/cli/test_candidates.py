"""What may come next on a command line: commands, options, values and files, in the form that each shell takes.

The names from a service, and the scripts in the shells themselves: `tests/integration/cli/test_completion.py`.
"""

from __future__ import annotations

import pytest

from app.__main__ import main
from app.cli.candidates import candidates
from app.cli.completion import SCRIPTS, Shell
from app.cli.program import COMMANDS

BREAKS = " \t\n\"'><=;|&(:"
"""bash's own."""


def words(*before: str, at: str = "") -> list[str]:
    return [value for value, _ in candidates(before, at)]


def test_commands_options_and_values() -> None:
    assert candidates([], "") == list(COMMANDS.items())
    assert words(at="wat") == ["watchers"]
    assert set(words("watchers")) >= {"list", "apply", "dead-letters"}
    assert candidates(["watchers"], "app") == [("apply", "Create or replace the watchers of files.")]
    assert words("streams", "switch", "X", at="--t") == ["--to"]
    assert words("streams", "switch", "X", "--to") == ["changewire", "connector"]
    assert words("streams", "switch", "X", at="--to=co") == ["--to=connector"]
    assert words("watchers", "list", "--state", at="f") == ["FAILED", "FENCED"]
    assert words("watchers", "dead-letters", "orders", at="re") == ["replay"]
    assert words("completion") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    "line",
    ["serve --config ", "watchers apply -f ", "watchers apply --file a --file x", "verify orders --writes ",
     "watchers export -o ", "demo --data "],
)  # fmt: skip
def test_where_a_file_is_wanted_the_shell_offers_files(line: str) -> None:
    *before, incomplete = line.split(" ")
    assert words(*before, at=incomplete) == [":files"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [("changewire serv", ["serve"]), ("changewire streams switch X --to=co", ["connector"]),
     ("changewire streams switch 'a b' --to ", ["changewire", "connector"]),
     ('changewire watchers list --state "FA', ["FAILED"]), ("changewire nothing ", [*COMMANDS]),
     ("changewire serve --config x", [":files"]), ("changewire", [])],
)  # fmt: skip
def test_bash_gets_what_comes_after_the_last_place_where_it_takes_words_apart(
    line: str, answer: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["__complete", "bash", line, BREAKS]) == 0
    assert capsys.readouterr().out.splitlines() == (answer if line != "changewire" else [*COMMANDS])


def test_zsh_and_fish_get_what_each_candidate_means(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("zsh", "fish"):
        assert main(["__complete", shell, "se"]) == 0
        assert capsys.readouterr().out == f"serve\t{COMMANDS['serve']}\n"


@pytest.mark.parametrize("sent", [[], ["bash"], ["bash", "x"], ["zsh", "watchers", "show", "--url", "ftp://x", ""]])
def test_whatever_goes_wrong_nothing_is_said(sent: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["__complete", *sent]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_each_shell_is_printed_as_it_is(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out.strip("\n") == SCRIPTS[shell].strip("\n")
