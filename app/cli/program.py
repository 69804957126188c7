"""The command line as a whole: one tree of commands, made with typer, in which a command's module is imported when it
is called.

What every command has in common is here: the look of `--help`, wrong usage in one line with exit code 2, and
`--version`. A command is the `app` in its module `app.cli.<name>`, or what its `application()` makes.
"""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, cast

import typer
import typer.main
from typer.core import TyperGroup

from app.cli import FAILED, MISUSE, OK, say

COMMANDS = {
    "serve": "run the service",
    "demo": "try it: real servers, a writer, and the messages as they arrive",
    "doctor": "check MongoDB, NATS and each watcher: what is wrong, and what to do",
    "watchers": "list, add, apply, export, change and remove watchers, and their dead letters",
    "instances": "list the instances that share the watchers; have one hand its watchers over",
    "streams": "switch a stream to the settings of mongodb-nats-connector, and back",
    "verify": "compare a stream with its collection's history: lost, doubled, reordered or altered?",
    "openapi": "print the OpenAPI document of the HTTP interface",
    "completion": "print the script that completes commands, options and names in a shell",
}
"""Each command and what it does; its module is `app.cli.<name>`."""
WIDTH = 100
"""Columns of a help text, where the terminal has as many."""
_PLAINLY = {
    r"\bValue error, ": "",
    r"\bInput should be a valid integer\b.*": "must be a whole number",
    r"\bInput should be greater than or equal to\b": "must be at least",
    r"\bInput should\b": "must",
}
"""What the library that reads values says of a wrong one, and how it is said here."""
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of every misuse that typer finds; it has no public name."""


class Commands(TyperGroup):
    """The commands by name, each imported when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # whose names are suggested after a typo

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        return command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def command(name: str) -> Any:
    """Import one command and return it as typer has it."""
    module = import_module(f"app.cli.{name}")
    made = typer.main.get_command(module.application() if hasattr(module, "application") else module.app)
    made.name = name
    return made


root = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted (128 + the number of the signal).",
)


@root.callback()
def changewire(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> int:
    """Publishes MongoDB change streams to NATS JetStream: once, in order, and fast."""
    del version  # `app/__main__.py` has answered it
    return OK


def tree() -> Any:
    """Return the root of all commands."""
    return typer.main.get_command(root)


def run(arguments: Sequence[str]) -> int:
    """Run a command with its arguments and return the exit code."""
    try:
        code = tree()(list(arguments), prog_name="changewire", standalone_mode=False)
    except typer.Abort:
        say("changewire: cancelled", error=True)
        return FAILED
    except _UsageError as error:
        say(misuse(error, arguments), error=True)
        return MISUSE
    return code if isinstance(code, int) else OK


def misuse(error: Any, arguments: Sequence[str]) -> str:
    """Say what is wrong with the arguments in one line; where a command is missing, the help says which there are."""
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else _called(arguments)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        return str(context.get_help())
    said = " ".join(error.format_message().split()).rstrip(".")
    for pattern, plainly in _PLAINLY.items():
        said = re.sub(pattern, plainly, said)
    said = re.sub(r"[. ]+(?:Did you mean|\(Possible options:) (.*?)[?)]$", r" (did you mean \1?)", said)
    if program == "changewire" and said.startswith("No such option"):
        said += "; write options after the command"
    return f"{program}: {said[:1].lower()}{said[1:]}; see {program} --help"


def _called(arguments: Sequence[str]) -> str:
    """The command that arguments call, for an error of the library that does not know it."""
    path, found = ["changewire"], tree()
    for word in arguments:
        found = found.get_command(None, word) if hasattr(found, "get_command") else None
        if found is None:
            break
        path.append(word)
    return " ".join(path)
