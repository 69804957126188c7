"""Watchers in files, as `changewire watchers add`, `apply` and `replace` take them and `export` writes them: JSON or
YAML, one or several.

Only the form is read here; whether a watcher is valid, the service says. The file of mongodb-nats-connector is another
one: `app/config/connector_yaml.py`.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.cli import MISUSE, CommandError
from app.domain.plain import plain

ENDINGS = (".json", ".yaml", ".yml")
"""Of the files that are read where a directory is given."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A watcher as a file has it, and where that is."""

    document: dict[str, Any]
    place: str
    """Such as `watcher 4 of orders.yaml`."""

    @property
    def name(self) -> str | None:
        """Its name, None where it has none that is a text: the service says what is wrong with it."""
        name = self.document.get("name")
        return name if isinstance(name, str) else None

    @property
    def label(self) -> str:
        """What it is called in a message."""
        return self.name or self.place


class _Loader(yaml.SafeLoader):
    """YAML whose times stay the text that they are: JSON has no others."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_all(paths: Iterable[Path]) -> list[Definition]:
    """Return the watchers of files; of a directory, those of its files by name.

    Raises CommandError, also where two have the same name."""
    found = [each for path in paths for file in _files(path) for each in read(file)]
    seen: dict[str, str] = {}
    for each in found:
        if each.name is not None and each.name in seen:
            raise CommandError(
                f"{each.name} is there twice: as {seen[each.name]} and as {each.place}; leave one of them out", MISUSE
            )
        if each.name is not None:
            seen[each.name] = each.place
    return found


def read(path: Path) -> list[Definition]:
    """Return the watchers of a file (`-`: standard input): one, a list, several YAML documents, or `watchers: […]`.

    Raises CommandError.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name} cannot be read: {_why(error)}", MISUSE) from None
    try:
        found = [each for document in _documents(text) for each in _watchers(document)]
        json.dumps(found)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise CommandError(f"{name} does not hold watchers as JSON or YAML: {said}", MISUSE) from None
    if not found:
        raise CommandError(f"{name} holds no watcher", MISUSE)
    return [Definition(each, f"watcher {number} of {name}") for number, each in enumerate(found, 1)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(each for each in path.iterdir() if each.suffix in ENDINGS and each.is_file())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {_why(error)}", MISUSE) from None
    if not found:
        raise CommandError(f"{path} has no file that ends with {', '.join(ENDINGS)}", MISUSE)
    return found


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not text"


def as_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """Write watchers as YAML documents, which `read` takes back as they are."""

    def dump(*, unicode: bool) -> str:
        return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=unicode, width=100)

    text = dump(unicode=True)
    return text if plain(text, keep="\n") == text else dump(unicode=False)  # it escapes what nobody could see


def as_json(documents: Sequence[dict[str, Any]]) -> str:
    """Write watchers as JSON: one, or a list of several."""
    text = json.dumps(documents[0] if len(documents) == 1 else list(documents), indent=2, ensure_ascii=False)
    return f"{plain(text, keep=chr(10))}\n"


def with_names(lines: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    """Say what the service says of a list's watchers with their names instead of their places, a line for each."""
    for line in lines:
        if len(names) == 1:
            yield line if line.startswith(f"{names[0]}: ") else f"{names[0]}: {line}"
            continue
        for part in re.split(r"; (?=\[[0-9]+\] )", line):
            found = re.match(r"\[([0-9]+)\](?:[. ]|: )?", part)
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
