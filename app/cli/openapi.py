"""Print the OpenAPI document of the HTTP interface, as openapi.json at the root of the repository holds it."""

import argparse
import json

from app.cli import OK


def configure(parser: argparse.ArgumentParser) -> None:
    """It takes no arguments."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print the document."""
    del arguments
    from app.api import openapi_document

    print(json.dumps(openapi_document(), indent=2, ensure_ascii=False))
    return OK
