"""mongodb-nats-connector's configuration file, read as it is: its settings, and a watcher for each of its collections.

Values are taken from the parsed text, node by node, because every complaint names file, line and key, and because a
number where a name belongs is the name as it is written. Not its business: environment and defaults of the settings
(`settings.py`), storing the watchers (`control/registry.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

import yaml

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.names import apart
from app.domain.patterns import is_name
from app.domain.text import HALF, is_text
from app.domain.watcher import Sink, Source, StreamSettings, Watcher, problems

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "log_level": "connector.log.level",
        "mongo_uri": "connector.mongo.uri",
        "nats_url": "connector.nats.url",
        "server_addr": "connector.server.addr",
    }
)
"""The settings that the file may hold, and where."""

COLLECTION_KEYS = (
    "dbName", "collName", "changeStreamPreAndPostImages", "tokensDbName", "tokensCollName", "tokensCollCapped",
    "tokensCollSizeInBytes", "streamName",
)  # fmt: skip

# Where a domain problem of a watcher shows in the file.
_KEY_OF_FIELD = {
    "source.database": "dbName",
    "source.collection": "collName",
    "checkpoint.database": "tokensDbName",
    "checkpoint.collection": "tokensCollName",
    "checkpoint.size_in_bytes": "tokensCollSizeInBytes",
    "sink.stream": "streamName",
}
_MAX_BYTES = 16 * 1024 * 1024

EXAMPLE = 'collections: [{dbName: "shop", collName: "orders"}]'


class ConnectorFileError(Exception):
    """The file cannot be used. `problems` has a sentence for each thing wrong, with file, line and key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ConnectorFile:
    """What the file says. `settings` is keyed like `Settings`; `warnings` name what was passed over."""

    settings: Mapping[str, str] = field(default_factory=dict)
    watchers: tuple[Watcher, ...] = ()
    warnings: tuple[str, ...] = ()

    def with_stream_settings(self, wanted: StreamSettings) -> "ConnectorFile":
        """The same, with streams that have these settings."""

        def switched(watcher: Watcher) -> Watcher:
            sink = replace(watcher.sink, stream_settings=wanted)
            return replace(watcher, sink=sink, entries=tuple(map(switched, watcher.entries)))

        return replace(self, watchers=tuple(map(switched, self.watchers)))


def read(path: Path) -> ConnectorFile:
    """Read the file. Raises ConnectorFileError with every problem found, not only the first."""
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise ConnectorFileError(f"{path}: is larger than 16 MiB; that is no configuration file")
        text = raw.decode("utf-8-sig")
    except IsADirectoryError:
        raise ConnectorFileError(
            f"{path}: is a directory, not a file. Containers get one where the file to be mounted is not there"
        ) from None
    except OSError as error:
        raise ConnectorFileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConnectorFileError(f"{path}: is not UTF-8 text") from None
    return parse(text, str(path))


def parse(text: str, path: str = "connector.yaml") -> ConnectorFile:
    """Read the file's text; `path` is what complaints call it. Raises ConnectorFileError."""
    return _Reader(path).read(text)


class _Refused(Exception):
    """A value has been complained about; what is made of it is left out."""


class _Reader:
    """One reading: walks the nodes and gathers what is wrong and what is odd."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def read(self, text: str) -> ConnectorFile:
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_node() if loader.check_node() else None
            self.flatten: Callable[[yaml.MappingNode], None] = loader.flatten_mapping
            settings, watchers = self.document(root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f"line {mark.line + 1}: " if mark else ""
            raise ConnectorFileError(f"{self.path}: {line}is not YAML: {error.problem or error.context}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConnectorFileError(f"{self.path}: is not YAML: {' '.join(str(error).split())}") from None
        merged = self.merged(watchers)
        if self.problems:
            raise ConnectorFileError(*self.problems)
        return ConnectorFile(settings, merged, tuple(self.warnings))

    def document(self, root: yaml.Node | None) -> tuple[dict[str, str], list[Watcher]]:
        settings: dict[str, str] = {}
        watchers: list[Watcher] = []
        if _is_null(root):
            return settings, watchers
        top = self.mapping(root, "", ("connector",))
        connector = self.mapping(top.get("connector"), "connector", ("log", "mongo", "nats", "server", "collections"))
        for name, where in SETTINGS.items():
            _, block, key = where.split(".")
            try:
                value = self.text(self.mapping(connector.get(block), f"connector.{block}", (key,)).get(key), where)
            except _Refused:
                continue
            if value:
                settings[name] = value
        collections = connector.get("collections")
        if isinstance(collections, yaml.SequenceNode):
            for index, node in enumerate(collections.value):
                try:
                    watchers.append(self.collection(node, f"connector.collections[{index}]", watchers))
                except _Refused:
                    continue
        elif not _is_null(collections):
            self.problem(collections, "connector.collections", f"must be a list. Example: {EXAMPLE}")
        return settings, watchers

    def collection(self, node: yaml.Node, where: str, others: list[Watcher]) -> Watcher:
        before = len(self.problems)
        keys = self.mapping(node, where, COLLECTION_KEYS)
        if not isinstance(node, yaml.MappingNode):
            if _is_null(node):
                self.problem(node, where, f"is empty. Example: {EXAMPLE}")
            raise _Refused
        for key, example in (("dbName", "shop"), ("collName", "orders")):
            if not self.text_of(keys, key, where):
                self.problem(keys.get(key) or node, f"{where}.{key}", f'is missing. Example: {key}: "{example}"')
        if len(self.problems) > before:
            raise _Refused
        watcher = self.beside(self.watcher(keys, node, where), others, node, where)
        for found in problems(watcher, state_database=""):
            key = _KEY_OF_FIELD.get(found.field, "")
            self.problem(
                keys.get(key) or node, f"{where}.{key}".rstrip("."), f"{found.problem} (watcher {watcher.name})"
            )
        if len(self.problems) > before:
            raise _Refused
        return watcher

    def watcher(self, keys: Mapping[str, yaml.Node], node: yaml.Node, where: str) -> Watcher:
        """The watcher that an entry with these keys asks for."""
        database, collection = (self.text_of(keys, key, where) for key in ("dbName", "collName"))
        size = self.number(keys.get("tokensCollSizeInBytes"), f"{where}.tokensCollSizeInBytes")
        capped = self.truth(keys.get("tokensCollCapped"), f"{where}.tokensCollCapped")
        if capped and size is None:
            # mongodb-nats-connector makes an ordinary collection then, without a word.
            self.warn(node, f"{where}.tokensCollCapped", "has no effect without tokensCollSizeInBytes")
            capped = False
        images = self.truth(keys.get("changeStreamPreAndPostImages"), f"{where}.changeStreamPreAndPostImages")
        return Watcher(
            name=f"{database}.{collection}",
            source=Source(database=database, collection=collection, pre_and_post_images=images),
            sink=Sink(stream=self.text_of(keys, "streamName", where), stream_settings="connector"),
            checkpoint=CheckpointPlace(
                database=self.text_of(keys, "tokensDbName", where) or CheckpointPlace().database,
                collection=self.text_of(keys, "tokensCollName", where),
                capped=capped,
                size_in_bytes=(size or 0) if capped else 0,
            ),
        ).with_defaults()

    def beside(self, watcher: Watcher, others: list[Watcher], node: yaml.Node, where: str) -> Watcher:
        """One collection in several entries: on another stream it is a watcher of its own, with a position of its own.

        mongodb-nats-connector would keep both positions in one place, where the newest is that of the faster one. On
        the same stream it publishes everything under the same ids, so that the second entry comes to nothing."""
        twins = [other for other in others if other.source.namespace == watcher.source.namespace]
        stream = watcher.sink.stream
        if any(twin.sink.stream == stream for twin in twins):
            self.warn(node, where, f"publishes {watcher.name} to {stream}, as an entry above it does; it has no effect")
            raise _Refused
        if not twins:
            return watcher
        place = watcher.checkpoint or CheckpointPlace()  # the file's watchers have one
        if any(twin.checkpoint is not None and twin.checkpoint.namespace == place.namespace for twin in twins):
            place = replace(place, collection=apart(place.collection, stream))
        return replace(watcher, name=apart(watcher.name, stream), checkpoint=place)

    def merged(self, watchers: Sequence[Watcher]) -> tuple[Watcher, ...]:
        """One watcher for each stream: of several entries, in the place of the first."""
        by_stream: dict[str, list[Watcher]] = {}
        for watcher in watchers:
            by_stream.setdefault(watcher.sink.stream, []).append(watcher)
        found = []
        for stream, entries in by_stream.items():
            if len(entries) == 1:
                found.append(entries[0])
                continue
            watcher = merge(entries)
            wrong = [f"{entry.name} holds * or ?" for entry in entries if not is_name(entry.source.namespace)]
            wrong += [f"{each.field} {each.problem}" for each in problems(watcher, state_database="")]
            if wrong:
                names = ", ".join(entry.name for entry in entries[:5]) + (" and more" if len(entries) > 5 else "")
                self.problems.append(
                    f"{self.path}: the entries of stream {stream} ({names}) cannot be one watcher: {'; '.join(wrong)}. "
                    "Give one of them a streamName of its own"
                )
                continue
            found.append(watcher)
        return tuple(found)

    # One value.

    def mapping(self, node: yaml.Node | None, where: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        """The values by key; unknown keys are warned about: mongodb-nats-connector ignores them silently."""
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(
                node,
                where or "the file",
                f"must hold keys and values. Example: {(where + '.').lstrip('.')}{known[0]}: …",
            )
            return {}
        for key, line in _repeated(node):
            self.problems.append(f"{self.path}: line {line}: {where + '.' if where else ''}{key} is there twice")
        self.flatten(node)
        values: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a key"
            if key in known:
                values[key] = value
            else:
                near = get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                self.warn(key_node, f"{where}.{key}".lstrip("."), f"is not known and is ignored{hint}")
        return values

    def text_of(self, keys: Mapping[str, yaml.Node], key: str, where: str) -> str:
        """The text of a key in an entry; empty where there is none, or where it has been complained about."""
        try:
            return self.text(keys.get(key), f"{where}.{key}")
        except _Refused:
            return ""

    def text(self, node: yaml.Node | None, where: str) -> str:
        if node is None or _is_null(node):
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, where, f'must be text. Example: {where.rpartition(".")[2]}: "shop"')
            raise _Refused
        if not is_text(str(node.value)):
            self.problem(node, where, HALF)
            raise _Refused
        return str(node.value)

    def truth(self, node: yaml.Node | None, where: str) -> bool:
        if node is None or _is_null(node):
            return False
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return str(node.value).lower() in ("true", "yes", "on")
        self.problem(node, where, f"must be true or false. Example: {where.rpartition('.')[2]}: true")
        return False

    def number(self, node: yaml.Node | None, where: str) -> int | None:
        if node is None or _is_null(node):
            return None
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int":
            try:
                return int(str(node.value).replace("_", ""), 0)
            except ValueError:
                pass
        self.problem(node, where, f"must be a whole number. Example: {where.rpartition('.')[2]}: 4096")
        return None

    def problem(self, node: yaml.Node | None, where: str, what: str) -> None:
        self.problems.append(self._sentence(node, where, what))

    def warn(self, node: yaml.Node | None, where: str, what: str) -> None:
        self.warnings.append(self._sentence(node, where, what))

    def _sentence(self, node: yaml.Node | None, where: str, what: str) -> str:
        line = f"line {node.start_mark.line + 1}: " if node is not None and node.start_mark else ""
        return f"{self.path}: {line}{where} {what}"


def merge(entries: Sequence[Watcher]) -> Watcher:
    """Return the watcher of several entries with one stream, which it is called by.

    What mongodb-nats-connector does for each entry is done for each: images, and the place of the position."""
    first = entries[0]
    databases = {entry.source.database for entry in entries}
    if len(databases) == 1:
        source = Source(first.source.database, include=tuple(entry.source.collection for entry in entries))
    else:
        source = Source(include=tuple(entry.source.namespace for entry in entries))
    stream = first.sink.stream
    return replace(first, name=stream.replace("%", "_"), source=source, entries=tuple(entries))


def _is_null(node: yaml.Node | None) -> bool:
    return node is None or (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null")


def _repeated(node: yaml.MappingNode) -> Iterator[tuple[str, int]]:
    """Keys that a mapping holds more than once (merge keys aside), each with its line; YAML forbids them."""
    seen: set[str] = set()
    for key_node, _ in node.value:
        if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
            if key_node.value in seen:
                yield str(key_node.value), key_node.start_mark.line + 1
            seen.add(str(key_node.value))
