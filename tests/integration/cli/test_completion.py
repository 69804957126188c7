"""Completion as somebody types it: the names of a real service, and the scripts in the shells that are here."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import main
from app.cli.candidates import candidates
from app.devservers.servers import free_port
from tests.integration.cli.command import Command
from tests.live import Live
from tests.service import ROOT

PATIENT = "from app.__main__ import main; from app.cli import candidates; candidates.SECONDS = 30; exit(main())"
"""The command, but that it waits for names as long as it takes: the service may be busy."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A `changewire` on the path."""
    path = tmp_path / "bin" / "changewire"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{PATIENT}" "$@"\n')
    path.chmod(0o755)
    return path


def complete(shell: str, script: str, program: Path, **environ: str) -> str:
    """Run a script in a shell of its own, in which `changewire` is on the path."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(program.parent), **environ}
    done = subprocess.run(
        [shell, *{"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell], "-c", script],
        cwd=program.parent, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == "", done.stderr
    return done.stdout


BASH = """
source <(changewire completion bash)
COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_WORDBREAKS=$' \\t\\n"'"'"'><=;|&(:'
compopt() { echo "compopt $*"; }
_changewire "$CALLED"
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What bash does when Tab is pressed. Programmable completion has no other way in without a terminal."""


async def test_names_come_from_the_service_with_their_states(
    watchers: Command, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.candidates.SECONDS", 30)
    await live.add(paused=True)
    await live.add(
        "users", source={"database": live.database, "collection": "users"}, sink={"stream": "U" + live.unique}
    )
    await live.reaches("RUNNING", "users")

    def asked(*before: str, at: str = "") -> list[tuple[str, str]]:
        return candidates(before, at)

    assert await asyncio.to_thread(asked, "watchers", "show") == [("orders", "PAUSED"), ("users", "RUNNING")]
    assert await asyncio.to_thread(asked, "watchers", "export", "orders", at="u") == [("users", "RUNNING")]
    assert await asyncio.to_thread(asked, "verify", at="o") == [("orders", "PAUSED")]
    ((instance, state),) = await asyncio.to_thread(asked, "instances", "drain")
    assert (instance, state) == ((await live.get("/instances"))[0]["name"], "active")


async def test_without_a_service_there_are_no_names_and_nothing_is_said(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "nonsense://"):
        monkeypatch.setenv("CHANGEWIRE_URL", url)
        for shell in (("bash", "changewire watchers show ", " "), ("zsh", "watchers", "show", "")):
            assert await asyncio.to_thread(main, ["__complete", *shell]) == 0
            assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("called", ["changewire", "{}", "~/changewire"])
async def test_in_bash(watchers: Command, live: Live, program: Path, called: str) -> None:
    await live.add("a&b$c", paused=True)
    called = called.format(program)

    async def typed(line: str) -> list[str]:
        said = await asyncio.to_thread(complete, "bash", BASH, program, LINE=f"{called} {line}", CALLED=called)
        return said.split("\n")[:-1]

    assert await typed("wat") == ["watchers"]
    assert await typed("watchers list --state=FA") == ["FAILED"]
    assert await typed("watchers show ") == ["a\\&b\\$c"]  # typed as it is, it would run a program
    assert await typed("serve --config ") == ["compopt -o default", ""]
    assert await typed("watchers nonsense ") == await typed("watchers ")


async def test_in_fish(watchers: Command, live: Live, program: Path) -> None:
    await live.add("a&b$c", paused=True)

    async def typed(line: str) -> list[str]:
        script = f"changewire completion fish | source; complete -C 'changewire {line}'"
        return (await asyncio.to_thread(complete, "fish", script, program)).splitlines()

    assert await typed("serv") == ["serve\trun the service"]
    assert await typed("watchers list --state ") == ["FAILED", "FENCED", "PAUSED", "RETRYING", "RUNNING", "STARTING"]
    assert await typed("watchers show ") == ["a&b$c\tPAUSED"]
    assert "changewire" in await typed("serve --config c")


async def test_in_zsh(watchers: Command, live: Live, program: Path) -> None:
    await live.add("a&b$c", paused=True)
    functions = "_describe() { print -rl -- ${(P)3} }; _files() { print files }; compdef() { : }"

    async def typed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("changewire", *words))
        script = (
            f"{functions}; source <(changewire completion zsh); words=({line}) CURRENT={len(words) + 1}; _changewire"
        )
        return (await asyncio.to_thread(complete, "zsh", script, program)).splitlines()

    assert await typed("serv") == ["serve:run the service"]
    assert await typed("watchers", "show", "") == ["a&b$c:PAUSED"]
    assert await typed("serve", "--config", "") == ["files"]
