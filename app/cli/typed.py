"""What the declarations of commands share: how an application is made, the options of every command that asks a running
service, and rich's console.

Imports typer, and rich where a table is printed, so that `serve` starts without it.
"""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from app.cli import candidates, say
from app.domain.plain import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="Address of the service.", show_default=False)]
Token = Annotated[
    str | None, typer.Option("--api-token", metavar="TOKEN", help="API token of the service.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
"""Options of every command that asks a running service."""
Watcher = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The watcher's name.", show_default=False, autocompletion=candidates.watchers),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
WIDTH = 160
"""Columns where the output is no terminal: a table is not to be cut there."""
LONG = 4000
"""Columns of a table whose lines are not to be cut at all."""


class Command(TyperCommand):
    """A command whose help shows arguments as other programs do: NAME, [NAME], without the type that Python has."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.param_type_name == "argument":
                rows["Arguments"].append((record[0].partition(" ")[0], record[1].removesuffix("[required]").rstrip()))
            elif record is not None:
                rows["Options"].append(record)
        for title, listed in rows.items():
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)


class _Application(typer.Typer):
    def command(self, name: str | None = None, **options: Any) -> Any:
        return super().command(name, **({"cls": Command} | options))


def application(text: str | None, **options: Any) -> typer.Typer:
    """Make an application that has `text` as its description. Further options are typer's."""
    return _Application(
        help=text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options
    )


def console() -> "Console":
    """Where people look: as wide as the terminal; plain, and wide enough, elsewhere."""
    from rich.console import Console

    wide = Console(highlight=False, markup=False, emoji=False)
    return wide if wide.is_terminal else Console(width=WIDTH, highlight=False, markup=False, emoji=False)


def print_whole(table: "Table") -> None:
    """Print a table whose lines are as long as they are, without colours, for a program or a narrow terminal."""
    from rich.console import Console

    drawing = Console(width=LONG, force_terminal=False, color_system=None, highlight=False, markup=False, emoji=False)
    with drawing.capture() as drawn:
        drawing.print(table)
    say("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def confirm(question: str, *, yes: bool, shown: str = "") -> None:
    """Ask where somebody is there to answer, below what is `shown` to them first. Raises typer.Abort."""
    if yes or not sys.stdin.isatty():
        return
    if shown:
        say(shown, error=True)
    typer.confirm(plain(question), abort=True)
