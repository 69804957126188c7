"""Watchers in files, as `changewire watchers add -f` takes them: JSON or YAML, one or several.

Only the form is read here; whether a watcher is valid, the service says. The file of mongodb-nats-connector is another
one: `app/config/connector_yaml.py`.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from app.cli import MISUSE, CommandError


class _Loader(yaml.SafeLoader):
    """YAML whose times stay the text that they are: JSON has no others."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the watchers of a file (`-`: standard input): one, a list, several YAML documents, or `watchers: […]`.

    Raises CommandError.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise CommandError(f"{name} cannot be read: {why}", MISUSE) from None
    try:
        found = [each for document in _documents(text) for each in _watchers(document)]
        json.dumps(found)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise CommandError(f"{name} does not hold watchers as JSON or YAML: {said}", MISUSE) from None
    if not found:
        raise CommandError(f"{name} holds no watcher", MISUSE)
    return found


def with_names(lines: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    """Say what the service says of a list's watchers with their names instead of their places, a line for each."""
    for line in lines:
        if len(names) == 1:
            yield f"{names[0]}: {line}"
            continue
        for part in re.split(r"; (?=\[[0-9]+\] )", line):
            found = re.match(r"\[([0-9]+)\][. ]?", part)
            known = found is not None and int(found[1]) < len(names)
            yield f"{names[int(found[1])]}: {part[found.end() :]}" if found is not None and known else part


def _documents(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return [each for each in yaml.load_all(text, _Loader) if each is not None]


def _watchers(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict) and "watchers" in document:
        document = document["watchers"]
        if not isinstance(document, list):
            raise TypeError(f"`watchers` is a list, not {json.dumps(document)[:60]}")
    listed = document if isinstance(document, list) else [document]
    for each in listed:
        if not isinstance(each, dict):
            raise TypeError(f"a watcher is an object, not {json.dumps(each)[:60]}")
    return listed
