"""The parser of every command's arguments: the description as it is written, and misuse in one line."""

import argparse
import sys
from typing import Any, NoReturn

from app.cli import MISUSE, say


class Parser(argparse.ArgumentParser):
    """argparse, which would put the whole usage before an error and cut the line of what is wrong from it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say it in one line and end with the code of misuse."""
        say(f"{self.prog}: {message}; see {self.prog} --help", error=True)
        sys.exit(MISUSE)
