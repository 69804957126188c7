"""What the commands made with typer share: wrong usage in one line with exit code 2, like every other command, and
rich's console.

Imports typer and rich, so it is imported by those commands alone.
"""

from collections.abc import Sequence
from typing import Annotated, cast

import typer
import typer.main
from rich.console import Console

from app.cli import FAILED, MISUSE, OK, say

Url = Annotated[str | None, typer.Option("--url", help="address of the service", show_default=False)]
Token = Annotated[str | None, typer.Option("--api-token", help="API token of the service", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
"""Options of every command that asks a running service."""
WIDTH = 160
"""Columns where the output is no terminal: a table is not to be cut there."""
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of every misuse that typer finds; it has no public name."""


def application(text: str | None) -> typer.Typer:
    """Make an application that has `text` as its description."""
    return typer.Typer(help=text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def run(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run it with these arguments and return the exit code."""
    try:
        code = typer.main.get_command(app)(list(arguments), prog_name=f"changewire {name}", standalone_mode=False)
    except typer.Abort:
        say(f"changewire {name}: cancelled", error=True)
        return FAILED
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        program = context.command_path if context is not None else f"changewire {name}"
        message = error.format_message().rstrip(".") or "a command is missing"  # type: ignore[attr-defined]
        say(f"{program}: {message[:1].lower()}{message[1:]}; see {program} --help", error=True)
        return MISUSE
    return code if isinstance(code, int) else OK


def console() -> Console:
    """Where people look: as wide as the terminal; plain, and wide enough, elsewhere."""
    wide = Console(highlight=False, markup=False, emoji=False)
    return wide if wide.is_terminal else Console(width=WIDTH, highlight=False, markup=False, emoji=False)
