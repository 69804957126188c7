"""The code blocks of the documentation, and stand-ins for the shells that run them.

A page marks a block that cannot run here by a comment on the line before it: `<!-- not run: why -->`. Every other block
of a shell (`sh`, `js` for mongosh, `nats` for a server's configuration) has to be run by a test, and
`tests/unit/project/test_blocks.py` checks that the pages and the tests agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
LANGUAGES = ("sh", "js", "nats")
"""What is run: commands of a shell, of mongosh, and configurations of nats-server."""
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]*?) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_CALL = re.compile(
    r'db\.(?:getSiblingDB\("(?P<database>[^"]+)"\)\.)?(?P<name>adminCommand|createRole|createUser|grantRolesToUser)\((?P<rest>.*)\)',
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code. `unrun` says why it is not run, where it is marked so; `section` is the heading above it."""

    page: str
    section: str
    language: str
    text: str
    unrun: str | None


def blocks(page: str, *, section: str | None = None, language: str | None = None) -> list[Block]:
    """Return the blocks of a page (a path from the project's root) in their order: all, or those of a section or
    language."""
    text = (ROOT / page).read_text()
    headings = [(each.start(), each.group(1)) for each in re.finditer(r"^#+ (.*)$", _without_code(text), re.MULTILINE)]
    found = []
    for each in _BLOCK.finditer(text):
        above = [title for at, title in headings if at < each.start()]
        body = re.sub(rf"^{each['indent']}", "", each["text"], flags=re.MULTILINE)
        found.append(Block(page, above[-1] if above else "", each["language"], body, each["why"]))
    return [
        each for each in found if section in (None, each.section) and (language is None or each.language == language)
    ]


def _without_code(text: str) -> str:
    """The text with blanks in place of its code, in which `#` begins a comment."""
    return _BLOCK.sub(lambda each: re.sub(r"[^\n]", " ", each.group()), text)


def mongosh(script: str, change: Callable[[str], str] = lambda text: text) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the calls of a script for mongosh, and yield each as (database, command).

    It knows `db.adminCommand(…)` and, of a database, `createRole`, `createUser` and `grantRolesToUser`. Their arguments
    are literals, which YAML reads as JavaScript does, and `Double(…)`. A password that is asked for is `secret`.
    Raises ValueError for any other statement."""
    plain = re.sub(r"^\s*//.*$", "", change(script), flags=re.MULTILINE)
    for statement in re.split(r"\n(?=db\.)", plain.strip()):
        call = _CALL.fullmatch(statement.strip().removesuffix(";"))
        if call is None:
            raise ValueError(f"not a call that is known: {statement}")
        literal = re.sub(r"Double\((\d+)\)", r"\1.0", call["rest"].replace("passwordPrompt()", "secret"))
        arguments = yaml.safe_load(f"[{literal}]")
        database = call["database"] or "admin"
        match call["name"]:
            case "adminCommand":
                yield "admin", arguments[0]
            case "grantRolesToUser":
                yield database, {"grantRolesToUser": arguments[0], "roles": arguments[1]}
            case name:
                key = "role" if name == "createRole" else "user"
                yield database, {name: arguments[0].pop(key), **arguments[0]}


TOOLS = ("changewire", "nats", "mongodump", "mongorestore")
"""The commands that pages call besides those of every system."""


class Shell:
    """A bash in which the commands of a page find their tools, and meet this test's servers.

    `replace` says what stands in the page and what it is here. `changewire` is this project's. The others are those of
    `tests/stand_ins.py`, which do the same on the same servers; with CHANGEWIRE_TEST_REAL_TOOLS they are those of the
    system."""

    def __init__(self, directory: Path, replace: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._replace = dict(replace)
        tools = directory / "bin"
        tools.mkdir()
        for name in TOOLS:
            if name != "changewire" and "CHANGEWIRE_TEST_REAL_TOOLS" in os.environ and shutil.which(name):
                continue
            module = "app" if name == "changewire" else f"tests.stand_ins {name}"
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            (tools / name).chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        path = f"{tools}:{inherited.get('PATH', '')}"
        self._environ = {**inherited, "PATH": path, "PYTHONPATH": str(ROOT), **environ}

    def here(self, text: str) -> str:
        """Return a page's text with the names of this test in place of its own."""
        for written, real in self._replace.items():
            text = text.replace(written, real)
        return text

    async def __call__(self, block: Block | str, *, code: int = 0, seconds: float = 60) -> str:
        """Run a block, and return what it prints. It ends at the first command that fails."""
        text = block.text if isinstance(block, Block) else block
        process = await asyncio.create_subprocess_exec(
            "bash", "-e", "-c", self.here(text), cwd=self._directory, env=self._environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds):
                printed = (await process.communicate())[0].decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == code, printed
        return printed
