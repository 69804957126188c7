"""Each command that a page of the documentation shows is one, with options that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli import program

ROOT = Path(__file__).parents[3]
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "changewire " in page.read_text()
]


def shown(text: str) -> Iterator[list[str]]:
    """The words of each command in code: a line of a block, or a piece of a sentence."""
    text = re.sub(r"(?s)<!-- from the code;.*?<!-- the end", "", text)
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```|^((?: {4}.*\n)+)", text)
    pieces = [line for block in blocks for line in "".join(block).splitlines()]
    pieces += re.findall(r"`([^`\n]+)`", text)
    for piece in (each.replace("\\|", "|") for each in pieces):
        found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:watch -n \d+ )?(?:\S*/)?changewire ([a-z].*)", piece)
        if found is not None:
            line = re.split(r" #|[|;&>]|\) ", found[1].replace("[", "").replace("]", ""))[0]
            try:
                yield shlex.split(line)
            except ValueError:
                yield line.split()


def wrong(words: list[str]) -> str | None:
    """What of a command there is not."""
    command: Any = program.tree()
    options = {"--help", "-h", "--version"}
    for word in words:
        if hasattr(command, "list_commands") and re.fullmatch(r"[a-z][a-z-]*", word):
            command = command.get_command(None, word)
            if command is None:
                return f"there is no command {word}"
            options |= {name for each in command.params for name in each.opts}
        elif word.startswith("-") and word.partition("=")[0].rstrip(".,…") not in options:
            return f"there is no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_one(page: Path) -> None:
    found = {" ".join(words): wrong(words) for words in shown(page.read_text())}
    assert {line: problem for line, problem in found.items() if problem is not None} == {}


def test_the_commands_are_found() -> None:
    found = [" ".join(words) for words in shown((ROOT / "docs" / "commands.md").read_text())]
    assert "watchers apply -f watchers.yaml --dry-run" in found
    assert len(found) > 20
    assert wrong(["watchers", "applied"]) == "there is no command applied"
    assert wrong(["watchers", "apply", "--dryrun"]) == "there is no option --dryrun"
