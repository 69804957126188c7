"""What may come next on a command line, for the scripts of `changewire completion`.

A shell starts a process for it each time the key is pressed: only what the line needs is imported, and the service is
asked for names once and for a moment. Whatever goes wrong, there is nothing to choose from and nothing is said.

Protocol: `changewire __complete SHELL …` prints a line for each candidate, `value TAB meaning`, or the line `:files`
where the name of a file is wanted. zsh and fish send the words after `changewire`, the last of which is incomplete.
bash sends the line up to the cursor and the characters at which it takes words apart ($COMP_WORDBREAKS): it replaces
only what comes after the last of them, so a candidate is cut there, and it inserts what it gets without quoting.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from app.cli import OK, say

FILES = ":files"
SECONDS = 0.5
"""How long the service may take with its names."""


def watchers(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of the service's watchers, each with its state."""
    del incomplete
    return [(each["name"], each["status"]["state"]) for each in _asked(ctx, "/watchers")]


def instances(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of the service's instances, each with its state."""
    del incomplete
    return [(each["name"], each["state"]) for each in _asked(ctx, "/instances")]


def files(incomplete: str) -> list[tuple[str, str]]:
    """Say that the name of a file is wanted. The library keeps only what begins with the incomplete word."""
    return [(incomplete, FILES)]


def _asked(ctx: Any, path: str) -> list[dict[str, Any]]:
    from app.cli.http_client import connect

    found: list[dict[str, Any]] = connect(ctx.params.get("url"), ctx.params.get("api_token"), SECONDS).call("GET", path)
    return found


def answer(arguments: Sequence[str]) -> int:
    """Print the candidates for what a shell has sent."""
    try:
        shell, *sent = arguments
        breaks = ""
        if shell == "bash":
            line, breaks = sent
            sent = _words(line)[1:]
        *before, incomplete = sent or [""]
        lines = [_line(shell, value, text, _kept(incomplete, breaks)) for value, text in candidates(before, incomplete)]
    except Exception:  # noqa: BLE001  # somebody is in the middle of typing a line
        return OK
    for each in lines:
        say(each, keep="\t\n")
    return OK


def candidates(before: Sequence[str], incomplete: str) -> list[tuple[str, str]]:
    """Return the words that may stand in the place of `incomplete`, each with what it means."""
    from app.cli import program

    found = _library().get_completions(list(before), incomplete)
    if any(each.help == FILES for each in found):
        return [(FILES, "")]
    joined = incomplete.startswith("-") and "=" in incomplete
    prefix = incomplete[: incomplete.index("=") + 1] if joined else ""
    meanings = program.COMMANDS if not before else {}
    return [
        (f"{prefix}{each.value}", " ".join((meanings.get(each.value) or each.help or "").split())) for each in found
    ]


def _library() -> Any:
    """Return what finds the place in the tree of commands: typer's own copy of click has it."""
    from typer._click.shell_completion import ShellComplete

    from app.cli import program

    class Candidates(ShellComplete):
        def get_completion_args(self) -> tuple[list[str], str]:
            raise NotImplementedError

        def source_vars(self) -> dict[str, Any]:
            raise NotImplementedError

        def format_completion(self, item: Any) -> str:
            raise NotImplementedError

    return Candidates(program.tree(), {}, "changewire", "")


def _words(line: str) -> list[str]:
    """Take a line apart as a shell does; the last word is the one at the cursor, and may be empty or lack its quote."""
    words = shlex.shlex(line, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    found: list[str] = []
    try:
        found.extend(words)
    except ValueError:  # a quote that is not closed yet
        return [*found, words.token]
    return [*found, ""] if not line or line[-1].isspace() else found


def _kept(incomplete: str, breaks: str) -> int:
    """Return how many characters at the beginning of a word bash leaves as they are."""
    return max((incomplete.rfind(each) + 1 for each in breaks if not each.isspace()), default=0)


def _line(shell: str, value: str, text: str, kept: int) -> str:
    if value == FILES:
        return value
    if shell == "bash":
        return re.sub(r"([^\w@%+=:,./-])", r"\\\1", value[kept:])
    return f"{value}\t{text}" if text else value
