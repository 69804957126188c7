"""Whether a process still runs, as its machine knows it: never a guess that it has ended."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.control import process
from tests.unit.control.processes import described


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield running
    running.kill()
    running.communicate()


def test_this_process_has_not_ended() -> None:
    assert not process.has_ended(process.this_process())


def test_a_process_that_runs_has_not_ended_and_has_once_it_was_killed(child: subprocess.Popen[bytes]) -> None:
    said = described(child.pid)
    assert not process.has_ended(said)
    child.kill()
    child.communicate()
    assert process.has_ended(said)


def test_a_zombie_has_ended(child: subprocess.Popen[bytes]) -> None:
    said = described(child.pid)
    child.kill()
    while process._started(child.pid):
        pass  # until the kernel has ended it; nobody has waited for it, so that it is a zombie
    assert Path(f"/proc/{child.pid}").exists()
    assert process.has_ended(said)


def test_another_process_with_the_same_number_is_not_the_one_that_was(child: subprocess.Popen[bytes]) -> None:
    assert process.has_ended(described(child.pid, started="1"))


@pytest.mark.parametrize("other", ["host", "boot", "namespace"])
def test_nothing_is_known_of_processes_of_another_machine(child: subprocess.Popen[bytes], other: str) -> None:
    said = described(child.pid, **{other: "another"})
    child.kill()
    child.communicate()
    assert not process.has_ended(said)


@pytest.mark.parametrize("missing", ["boot", "namespace", "started"])
def test_nothing_is_known_of_a_process_whose_machine_did_not_say(child: subprocess.Popen[bytes], missing: str) -> None:
    assert not process.has_ended(described(child.pid, **{missing: ""}))


@pytest.mark.parametrize("number", [None, "x", [1]])
def test_nothing_is_known_of_what_has_no_number(number: object) -> None:
    assert not process.has_ended(described(os.getpid(), number=number))


def test_a_process_that_cannot_be_looked_at_has_not_ended(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    said, read = described(child.pid), Path.read_text

    def too_many(path: Path) -> str:
        if path.name == "stat":
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr(Path, "read_text", too_many)
    assert not process.has_ended(said)
    assert json.loads(process.this_process())[-1] == "", "nothing is known of this one either"


@pytest.mark.parametrize("said", ["", "[]", "7", "null", '{"a": 1}', "[1, 2, 3, 4]", "nonsense"])
def test_nothing_is_known_of_what_is_no_description(said: str) -> None:
    assert not process.has_ended(said)


def test_where_the_machine_says_nothing_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "BOOT", tmp_path / "none")
    assert not process.has_ended(process.this_process())


def test_a_process_that_proc_hides_has_not_ended(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other users' processes, as with the mount option `hidepid`."""
    said = described(child.pid)
    monkeypatch.setattr(process, "_started", lambda number: "")

    def refused(number: int, _: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", refused)
    assert not process.has_ended(said)
    monkeypatch.undo()
