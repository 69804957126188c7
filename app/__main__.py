"""The command line: finds the command and runs it. What a command does is in its module below `app/cli/`.

Exit codes: 0 success, 1 failure, 2 wrong usage (arguments or settings), 128 + the signal's number when a signal ended
it (130: Ctrl-C). Little is imported here, and signal handlers are installed before anything else.
"""

import os
import sys
from collections.abc import Sequence

from app.cli import FAILED, MISUSE, CommandError, say, signals
from app.domain.text import is_text

COMMANDS = {
    "serve": "run the service",
    "demo": "try it: real servers, a writer, and the messages as they arrive",
    "doctor": "check MongoDB, NATS and each watcher: what is wrong, and what to do",
    "watchers": "list, show, add, pause, resume, restart, snapshot, rewind, remove and tail watchers",
    "instances": "list the instances that share the watchers; have one hand its watchers over",
    "streams": "switch a stream to the settings of mongodb-nats-connector, and back",
    "verify": "compare a stream with its collection's history: lost, doubled, reordered or altered?",
    "openapi": "print the OpenAPI document of the HTTP interface",
}
"""Each command and what it does; its module is `app.cli.<name>`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; without `argv` as this process, whose signals it then takes over."""
    if argv is None:
        signals.guard()
    arguments = list(sys.argv[1:] if argv is None else argv)
    for number, argument in enumerate(arguments, 1):
        if not is_text(argument):
            return _fail(f"argument {number} is not UTF-8 text", MISUSE)
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        say(_usage())
        return 0
    if arguments[:1] in (["-V"], ["--version"]):
        from app import __version__

        say(f"changewire {__version__}")
        return 0
    if not arguments:
        say(_usage(), error=True)
        return MISUSE
    name, *rest = arguments
    if name.startswith("-"):
        return _fail(f"there is no option {name}; write options after the command; see changewire --help", MISUSE)
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        return _fail(f"there is no command {name}; {hint}", MISUSE)
    try:
        code = _run(name, rest)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(str(error), error.code)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _run(name: str, arguments: list[str]) -> int:
    from importlib import import_module

    command = import_module(f"app.cli.{name}")
    if hasattr(command, "main"):
        return int(command.main(arguments))
    from app.cli.arguments import Parser

    parser = Parser(prog=f"changewire {name}", description=command.__doc__)
    command.configure(parser)
    return int(command.run(parser.parse_args(arguments)))


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: changewire COMMAND [ARGUMENTS]\n\n"
        "Publishes MongoDB change streams to NATS JetStream: once, in order, and fast.\n\n"
        f"commands:\n{commands}\n\n"
        "changewire COMMAND --help describes a command; changewire --version prints the version.\n"
        "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted (128 + the number of the signal)."
    )


def _fail(message: str, code: int) -> int:
    say(f"changewire: {message}", error=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
