"""Programs that check files of the deployment. `make test` fetches them; a test that needs one is skipped without."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def linter(name: str) -> str:
    """Where the program is: where `make test` has it, or on the path."""
    directory = Path(os.environ.get("CHANGEWIRE_TEST_LINTERS", Path(__file__).parents[1] / ".venv" / "linters"))
    places = os.pathsep.join([str(directory / "bin"), str(directory / "go"), os.environ["PATH"]])
    path = shutil.which(name, path=places)
    if path is None:
        pytest.skip(f"no {name}; make test fetches it where it can")
    return path


def output(*command: str | Path, refused: bool = False) -> str:
    """What the program prints: on standard output, or, of one that has to fail, on both."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) is refused, done.stdout + done.stderr
    return done.stdout + done.stderr if refused else done.stdout
