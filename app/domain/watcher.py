"""A watcher as the user describes it, with every default filled in.

Values only. A watcher comes from the HTTP schema (`api/schemas/watchers.py`) or from `connector.yaml`
(`config/connector_yaml.py`). Both use `from_document`, and `problems` refuses what can be refused without asking a
server.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from app.domain import subjects
from app.domain.buckets import behind_problem, bucket_of, bucket_problem
from app.domain.checkpoint_place import TOKENS_DATABASE, CheckpointPlace
from app.domain.dead_letters import SUFFIX, letters_of, letters_space, meets_letters
from app.domain.errors import FieldProblem
from app.domain.javascript import javascript_problem
from app.domain.lifecycle import Desired
from app.domain.names import SYSTEM_COLLECTIONS, collection_problem, database_problem, name_problem
from app.domain.namespaces import Namespaces
from app.domain.patterns import Choice, choice, is_name
from app.domain.scopes import NEVER_WATCHED, image_problems, source_problems
from app.domain.snapshot import ROW_OPERATIONS
from app.domain.text import HALF, is_text
from app.domain.tokens import is_token

PUBLISHED = ("insert", "update", "replace", "delete")
"""The operations that are published where the watcher names none; mongodb-nats-connector's four."""
OPERATIONS = (
    *PUBLISHED, "drop", "rename", "dropDatabase", "invalidate", "create", "createIndexes", "dropIndexes", "modify",
    "shardCollection", "reshardCollection", "refineCollectionShardKey",
)  # fmt: skip
OnHistoryLost = Literal["fail", "latest", "earliest"]
WithSnapshot = Literal["none", "initial", "only"]
StreamSettings = Literal["changewire", "connector"]
"""Whose settings the stream has. `changewire`: fast ingest, atomic batches and direct reads are switched on.
`connector`: as mongodb-nats-connector makes it, and never changed; that program refuses any other settings."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where changes are read: one collection, every collection of a database, or with neither the whole deployment."""

    database: str = ""
    collection: str = ""
    include: tuple[str, ...] = ()
    """Patterns of the collections that are read (`patterns.py`); none: all. Empty where one collection is read."""
    exclude: tuple[str, ...] = ()
    pipeline: tuple[Mapping[str, Any], ...] = ()
    full_document: str | None = "updateLookup"
    full_document_before_change: str | None = "whenAvailable"
    pre_and_post_images: bool = False
    show_expanded_events: bool = False

    @property
    def namespace(self) -> str:
        """What is watched, in one word: `shop.orders`, `shop` for a database, `*` for the deployment."""
        return f"{self.database}.{self.collection}" if self.collection else self.database or "*"

    def has(self, database: str, collection: str) -> bool:
        """Whether changes of this collection are among those that are read; the state database's never are."""
        if self.collection:
            return (self.database, self.collection) == (database, collection)
        watched = self.choice.has(database, collection) and not collection.startswith(SYSTEM_COLLECTIONS)
        return watched and (bool(self.database) or database not in NEVER_WATCHED)

    def has_database(self, database: str) -> bool:
        """Whether changes of a database itself, such as dropDatabase, are among those that are read."""
        return self.choice.has_of(database) and (bool(self.database) or database not in NEVER_WATCHED)

    @property
    def is_scope(self) -> bool:
        """Whether this is a whole database or the deployment."""
        return not self.collection

    @property
    def named(self) -> list[tuple[str, str]]:
        """The collections that are named one by one, each with its database; a pattern with a wildcard names none."""
        if self.collection:
            return [(self.database, self.collection)]
        chosen = self.choice.include if self.include else ()
        return [(each.database, each.collection) for each in chosen if is_name(".".join(each))]

    @property
    def choice(self) -> Choice:
        """Which collections are chosen by name, where this is a scope."""
        return choice(self.database, self.include, self.exclude)

    def may_have_had(self, namespace: str | None) -> bool:
        """Whether a stored message may be of this source, now or before its patterns were changed.

        `namespace` is the collection that the message names, such as `shop.orders`; None where it names none."""
        if namespace is None:
            return True
        database, _, collection = namespace.partition(".")
        return self.database in ("", database) and self.collection in ("", collection)


@dataclass(frozen=True, slots=True)
class Sink:
    """Where they are published. `stream` is never empty on a watcher that came through `from_document`."""

    stream: str = ""
    subject: str = "{stream}.{operation}"
    operations: tuple[str, ...] = PUBLISHED
    oversize: Literal["claim_check", "fail", "dead_letter"] = "claim_check"
    replicas: int = 1
    max_age_seconds: float = 0
    max_bytes: int = -1
    duplicate_window_seconds: float = 120
    stream_settings: "StreamSettings" = "changewire"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a watcher without a position begins. `value` is seconds since 1970, a token, or None."""

    at: Literal["latest", "earliest", "timestamp", "token"] = "latest"
    value: float | str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Stream, subject template, and a short hash of which changes are selected (pipeline, operations)."""

    stream: str
    subject: str
    selection: str


@dataclass(frozen=True, slots=True)
class Watcher:
    """A source's way to one stream: of one collection, a database, or the deployment."""

    name: str
    source: Source
    sink: Sink = field(default_factory=Sink)
    checkpoint: CheckpointPlace | None = None
    """None: beside the positions of all other watchers, in the state database, under the watcher's name."""
    start: Start = field(default_factory=Start)
    on_history_lost: OnHistoryLost = "fail"
    snapshot: WithSnapshot = "none"
    """Whether a snapshot begins when it is added; `only`: and nothing else is ever published."""
    entries: tuple["Watcher", ...] = ()
    """Several of `connector.yaml` with one stream, each as if it were alone (`entries.py`)."""

    @property
    def places(self) -> tuple[CheckpointPlace, ...]:
        """The collections that it names for its position: none, one, or one for each of its entries."""
        return tuple(one.checkpoint for one in self.entries or (self,) if one.checkpoint is not None)

    @property
    def operations(self) -> frozenset[str]:
        """The operations whose changes are published."""
        return frozenset(() if self.snapshot == "only" else self.sink.operations)

    @property
    def space(self) -> str:
        """The filter that covers every subject this watcher publishes to."""
        return self.subjects.filter()

    @property
    def subjects(self) -> subjects.Template:
        """What the subject of a change is made from."""
        source, sink = self.source, self.sink
        return subjects.begin(sink.subject, stream=sink.stream, database=source.database, collection=source.collection)

    def subject(self, operation: str) -> str:
        """The subject of a change with this operation; a filter, where that depends on the change's names as well."""
        return self.subjects.filter(operation)

    @property
    def _all_operations(self) -> tuple[str, ...]:
        return (*self.sink.operations, "gap", *(ROW_OPERATIONS if self.snapshot != "none" else ()))

    @property
    def longest_subject(self) -> int:
        """The bytes of the longest subject it may publish to. A name that a change brings counts one here."""
        return max(len(self.subject(operation).encode()) for operation in self._all_operations)

    @property
    def most_subject_bytes(self) -> int:
        """The same, where names are as long as they can be."""
        return max(self.subjects.most_bytes(operation) for operation in self._all_operations)

    @property
    def route(self) -> "Route":
        """What the watcher's position is a position of: which changes go where."""
        source = self.source
        selected = [list(source.pipeline), source.show_expanded_events, sorted(self.operations)]
        if source.include or source.exclude:
            selected += [sorted(source.include), sorted(source.exclude)]
        selection = hashlib.sha256(json.dumps(selected, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return Route(self.sink.stream, self.sink.subject, selection)

    def on_route(self, route: "Route") -> "Watcher":
        """The watcher as it was when it published by `route`, as far as its place on the stream goes."""
        return replace(self, sink=replace(self.sink, stream=route.stream, subject=route.subject))

    def with_defaults(self) -> "Watcher":
        """Fill in what follows from the source's name: stream, and checkpoint collection where a place is named."""
        name = self.source.collection or self.source.database or "deployment"
        place = self.checkpoint
        return replace(
            self,
            sink=replace(self.sink, stream=self.sink.stream or subjects.escape(name.upper())),
            checkpoint=place and replace(place, collection=place.collection or name),
        )


@dataclass(frozen=True, slots=True)
class StoredWatcher:
    """A watcher in the registry's store.

    `revision` is new with each change of anything here, and greater than that of any change before, whichever watcher
    it was of; a writer names the one it has read. `added` is the revision it came with. `new_start` is set while an
    explicit start has not been acted upon, and `begin` is the token that the start meant when the watcher was added:
    what happens between then and the first opening belongs to the watcher. Both are taken back once it runs.
    """

    watcher: Watcher
    desired: Desired = Desired.RUNNING
    revision: int = 0
    added: int = 0
    new_start: bool = False
    begin: str | None = None
    origin: Literal["http", "file"] = "http"

    @property
    def name(self) -> str:
        return self.watcher.name


def problems(
    watcher: Watcher, *, state_database: str, allowed: Namespaces | None = None, javascript: bool = False
) -> list[FieldProblem]:
    """List what is wrong with a watcher as far as it can be told without a server; empty where nothing is.

    `allowed` are the collections that may be used; None: all. Positions may be kept in TOKENS_DATABASE as well, which
    is for nothing else. `javascript` says whether pipelines may run it in the server."""
    found: list[FieldProblem] = []

    def wrong(where: str, problem: str | None) -> None:
        if problem is not None:
            found.append(FieldProblem(where, problem))

    source, sink, checkpoint = watcher.source, watcher.sink, watcher.checkpoint
    names = {
        "name": watcher.name,
        "source.database": source.database, "source.collection": source.collection,
        **{f"source.include.{index}": entry for index, entry in enumerate(source.include)},
        **{f"source.exclude.{index}": entry for index, entry in enumerate(source.exclude)},
        "sink.stream": sink.stream, "sink.subject": sink.subject,
    }  # fmt: skip
    if checkpoint is not None:
        names |= {"checkpoint.database": checkpoint.database, "checkpoint.collection": checkpoint.collection}
    for where, name in names.items():
        wrong(where, None if is_text(name) else HALF)
    if found:
        return found
    wrong("name", name_problem(watcher.name))
    found += source_problems(
        source.database, source.collection, source.include, source.exclude, state_database=state_database
    )
    if checkpoint is not None:
        wrong("checkpoint.database", database_problem(checkpoint.database))
        if checkpoint.database.lower() == state_database.lower():  # MongoDB tells no two apart by case alone
            wrong("checkpoint.database", f"is {checkpoint.database}, which holds Changewire's own state")
        wrong("checkpoint.collection", collection_problem(checkpoint.database, checkpoint.collection))
        wrong("checkpoint.size_in_bytes", checkpoint.size_problem)
    found += outside(watcher, allowed)
    wrong("source.pipeline", None if javascript else javascript_problem(source.pipeline))
    if source.is_scope and len(source.named) < max(1, len(source.include)):
        found += image_problems(source.full_document, source.full_document_before_change, source.pre_and_post_images)
    if checkpoint is not None and source.has(checkpoint.database, checkpoint.collection):
        which = "among the watched collections" if source.is_scope else "the watched collection"
        wrong("checkpoint.collection", f"is {which}; each checkpoint would be a change")
    wrong(
        "sink.stream", subjects.stream_name_problem(sink.stream) or subjects.stream_name_problem(sink.stream + SUFFIX)
    )
    template = subjects.template_problem(sink.subject)
    wrong("sink.subject", template)
    if template is None:
        wrong("sink.subject", subjects.subject_problem(watcher.subjects.subject("x", "x", "insert")))
        if (longest := watcher.longest_subject) > subjects.MAX_SUBJECT:
            wrong("sink.subject", f"makes subjects of up to {longest:,} bytes; NATS accepts {subjects.MAX_SUBJECT:,}")
        if meets_letters(watcher.space, sink.stream):
            wrong("sink.subject", f"overlaps with the subjects of its own dead letters, {letters_space(sink.stream)}")
    for operation in (each for each in sink.operations if each not in OPERATIONS):
        wrong("sink.operations", f"has an unknown operation {operation!r}; known operations: {', '.join(OPERATIONS)}")
    wrong("sink.operations", None if sink.operations else "is empty: nothing would be published")
    if watcher.start.at == "token" and not is_token(str(watcher.start.value)):
        wrong("start.at", "is not a resume token: the hexadecimal _data string that MongoDB issues")
    return found


def problems_when_added(watcher: Watcher) -> list[FieldProblem]:
    """List what is wrong with the names that a watcher brings, where it is added or gets another stream.

    One that runs already, or comes from mongodb-nats-connector's file, keeps the name that it has."""
    stream = watcher.sink.stream
    bucket = bucket_problem(bucket_of(letters_of(stream)))
    found = behind_problem(stream) or (bucket and f"{bucket}, where large changes are kept; name a shorter one")
    return [FieldProblem("sink.stream", found)] if found else []


def outside(watcher: Watcher, allowed: Namespaces | None) -> list[FieldProblem]:
    """List what of a watcher leads to a collection that is not among those `allowed`; see `problems`."""
    if allowed is None:
        return []
    source, place = watcher.source, watcher.checkpoint
    if source.is_scope:
        found = allowed.scope_problems(source.database, source.choice.include, source.include)
    else:
        found = allowed.problems(source.database, source.collection, "source")
    if place is not None and place.database != TOKENS_DATABASE:
        found += allowed.problems(place.database, place.collection, "checkpoint")
    return found


def to_document(watcher: Watcher) -> dict[str, Any]:
    """Return the watcher in the shape of the HTTP interface, without `paused` (that is desired state)."""
    # Without the pipeline, of which `asdict` would copy every value.
    document = asdict(replace(watcher, source=replace(watcher.source, pipeline=()), entries=()))
    document["source"]["pipeline"] = [dict(stage) for stage in watcher.source.pipeline]
    for patterns in ("include", "exclude"):  # left out where empty: an earlier version does not know them
        entries = document["source"].pop(patterns)
        if entries:
            document["source"][patterns] = list(entries)
    document["sink"]["operations"] = list(watcher.sink.operations)
    document["start"] = start_to_document(watcher.start)
    if watcher.snapshot == "none":  # left out as well
        del document["snapshot"]
    del document["entries"]
    if watcher.entries:
        document["entries"] = [to_document(entry) for entry in watcher.entries]
    return document


def start_to_document(start: Start) -> dict[str, Any]:
    """Return a start position as `start_from_document` reads it."""
    if start.at == "timestamp":
        moment = datetime.fromtimestamp(float(start.value or 0), UTC)
        return {"at": {"timestamp": moment.isoformat().replace("+00:00", "Z")}}
    return {"at": {"token": start.value} if start.at == "token" else start.at}


def from_document(document: Mapping[str, Any]) -> Watcher:
    """Read what `to_document` wrote; missing fields take their defaults.

    The document's types have been checked before. Raises TypeError for a field that does not exist.
    """
    given = document["source"]
    lists = {name: tuple(given.get(name) or ()) for name in ("include", "exclude", "pipeline")}
    names = {name: given.get(name) or "" for name in ("database", "collection")}
    source = Source(**{**given, **names, **lists})
    sink = {"subject": default_subject(source), **(document.get("sink") or {})}
    if "operations" in sink:
        sink["operations"] = tuple(sink["operations"])
    rest = {key: value for key, value in document.items() if key in ("name", "on_history_lost", "snapshot")}
    place = document.get("checkpoint")
    return Watcher(
        source=source,
        sink=Sink(**sink),
        checkpoint=None if place is None else CheckpointPlace(**place),
        start=start_from_document(document.get("start") or {"at": "latest"}),
        entries=tuple(map(from_document, document.get("entries") or ())),
        **rest,
    ).with_defaults()


def default_subject(source: Source) -> str:
    """Return the template of a watcher that names none: each collection of a scope has subjects of its own."""
    scope = "" if source.collection else "{collection}." if source.database else "{database}.{collection}."
    return f"{{stream}}.{scope}{{operation}}"


def start_from_document(document: Mapping[str, Any]) -> Start:
    """Read a start position: `{"at": "latest" | "earliest" | {"timestamp": …} | {"token": …}}`, or the inner object.

    A timestamp is ISO 8601 text with an offset, a datetime, or seconds since 1970. Raises ValueError.
    """
    inner = document.get("at", document)
    if isinstance(inner, str):
        if inner not in ("latest", "earliest"):
            raise ValueError("must be latest, earliest, or an object with a timestamp or a token")
        return Start(at="latest" if inner == "latest" else "earliest")
    if "token" in inner:
        return Start(at="token", value=str(inner["token"]).upper())  # tokens are compared as text
    moment = inner["timestamp"]
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError("the timestamp has no offset; write for example 2026-01-01T00:00:00Z")
        moment = moment.timestamp()
    return Start(at="timestamp", value=float(moment))
