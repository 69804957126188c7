"""Print the OpenAPI document of the HTTP interface (the content of openapi.json)."""

import argparse

from app.cli import OK, say_json


def configure(parser: argparse.ArgumentParser) -> None:
    """It takes no arguments."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print the document."""
    del arguments
    from app.api import openapi_document

    say_json(openapi_document())
    return OK
