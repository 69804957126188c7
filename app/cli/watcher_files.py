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
MOST_VALUES = 1_000_000
"""More than a thousand watchers can need."""


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
    """YAML whose times stay the text that they are, since JSON has no others, and whose keys are there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


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
        documents = _documents(text, as_json=path.suffix == ".json")
        _check_size(documents)
        found = [each for document in documents for each in _watchers(document)]
        json.dumps(found)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise CommandError(f"{name} does not hold watchers as JSON or YAML: {_said(error)}", MISUSE) from None
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


def _said(error: Exception) -> str:
    """What a parser says, in a line, with the place first: a person looks there."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or holds itself"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
    mark = getattr(error, "problem_mark", None)
    if mark is None or not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    context = f" {error.context}" if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"


def _check_size(documents: list[Any]) -> None:
    """Refuse what a few lines of YAML's aliases can grow to. Raises ValueError."""
    left, waiting = MOST_VALUES, [documents]
    while waiting:
        values = waiting.pop()
        left -= len(values)
        if left < 0:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        for value in values:
            inner = list(value.values()) if isinstance(value, dict) else value
            if isinstance(inner, list):
                waiting.append(inner)


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


def _documents(text: str, *, as_json: bool) -> list[Any]:
    try:
        return [json.loads(text, object_pairs_hook=_once)]
    except _Twice:
        raise
    except ValueError as broken:
        try:
            return [each for each in yaml.load_all(text, _Loader) if each is not None]
        except yaml.YAMLError:
            if as_json:
                raise broken from None
            raise


class _Twice(ValueError):
    """An object has a key twice, and nothing says which of them is meant."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _watchers(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict) and "watchers" in document:
        if others := sorted(str(key) for key in document if key != "watchers"):
            raise TypeError(
                f"beside `watchers` there is {', '.join(others)[:60]}; only a list of watchers can be there"
            )
        document = document["watchers"]
        if not isinstance(document, list):
            raise TypeError(f"`watchers` is a list, not {json.dumps(document)[:60]}")
    listed = document if isinstance(document, list) else [document]
    for each in listed:
        if not isinstance(each, dict):
            raise TypeError(f"a watcher is an object, not {json.dumps(each)[:60]}")
    return listed
