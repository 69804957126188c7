"""The commands, one module each. `app/cli/program.py` is the tree of them, made with typer; a module has its `app`.

A module imports at its top only what declaring arguments needs, so that `--help` and wrong usage are answered at once.
An error that a person can fix is raised as CommandError and becomes one line. `app/__main__.py` runs the command.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.domain.plain import plain

if TYPE_CHECKING:
    from app.config.settings import Settings

OK, FAILED, MISUSE = 0, 1, 2


def say(text: str, *, error: bool = False, keep: str = "\n") -> None:
    """Print to standard output or error, as every command does, with control characters escaped, except `keep`."""
    print(plain(text, keep=keep), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(value: Any) -> None:
    """Print a value as JSON, for programs and for people."""
    import json

    say(json.dumps(value, indent=2, ensure_ascii=False))


class CommandError(Exception):
    """The command failed; the text says why and what to do. `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def load_settings(config: Path | None = None) -> "Settings":
    """Read the service's settings, for whichever command. Raises CommandError with a line for each that is wrong."""
    from app.config.settings import SettingsError, load

    try:
        return load(config)
    except SettingsError as error:
        raise CommandError("invalid settings\n  " + "\n  ".join(error.problems), MISUSE) from None
