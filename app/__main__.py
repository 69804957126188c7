"""The command line: finds the command and runs it. What a command does is in its module below `app/cli/`.

Exit codes: 0 success, 1 failure, 2 wrong usage (arguments or settings), 128 + the signal's number when a signal ended
it (130: Ctrl-C). Little is imported here, and signal handlers are installed before anything else. The parser in
`app/cli/program.py` takes a tenth of a second to import: `--version` and a plain `serve` do without it.
"""

import os
import sys
from collections.abc import Sequence

from app.cli import FAILED, MISUSE, OK, CommandError, say, signals
from app.domain.text import is_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; without `argv` as this process, whose signals it then takes over."""
    if argv is None:
        signals.guard()
    arguments = list(sys.argv[1:] if argv is None else argv)
    for number, argument in enumerate(arguments, 1):
        if not is_text(argument):
            return _fail(f"argument {number} is not UTF-8 text", MISUSE)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(str(error), error.code)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["-V"], ["--version"]):
        from app import __version__

        say(f"changewire {__version__}")
        return OK
    if arguments[:1] == ["serve"]:
        from app.cli import serve

        plain = serve.without_parser(arguments[1:])
        if plain is not None:
            return serve.run(**plain)
    if arguments[:1] == ["__complete"]:
        from app.cli import candidates

        return candidates.answer(arguments[1:])
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    from app.cli import program

    return program.run(arguments)


def _fail(message: str, code: int) -> int:
    say(f"changewire: {message}", error=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
