"""A watcher as the user describes it, with every default filled in.

Values only. A watcher comes from the HTTP schema (`api/schemas/watchers.py`) or from `connector.yaml`
(`config/connector_yaml.py`). Both use `from_document`, and `problems` refuses what can be refused without asking a
server.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from app.domain import subjects
from app.domain.buckets import behind_problem, bucket_of, bucket_problem
from app.domain.checkpoint_place import TOKENS_DATABASE, CheckpointPlace
from app.domain.dead_letters import SUFFIX, letters_of, letters_space, meets_letters
from app.domain.errors import FieldProblem
from app.domain.lifecycle import Desired
from app.domain.namespaces import Namespaces
from app.domain.text import HALF, is_text
from app.domain.tokens import is_token

PUBLISHED = ("insert", "update", "replace", "delete")
"""The operations that are published where the watcher names none; mongodb-nats-connector's four."""
OPERATIONS = (
    *PUBLISHED, "drop", "rename", "dropDatabase", "invalidate", "create", "createIndexes", "dropIndexes", "modify",
    "shardCollection", "reshardCollection", "refineCollectionShardKey",
)  # fmt: skip
OnHistoryLost = Literal["fail", "latest", "earliest"]
StreamSettings = Literal["changewire", "connector"]
"""Whose settings the stream has. `changewire`: fast ingest, atomic batches and direct reads are switched on.
`connector`: as mongodb-nats-connector makes it, and never changed; that program refuses any other settings."""
JAVASCRIPT = frozenset({"$function", "$accumulator", "$where"})
"""The operators that run JavaScript in the MongoDB server."""
SYSTEM_DATABASES = ("admin", "config", "local")
MAX_NAME = 128
MAX_NAMESPACE = 255
"""Bytes: MongoDB's limit for database, dot and collection together."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where changes are read: one collection, every collection of a database, or with neither the whole deployment."""

    database: str = ""
    collection: str = ""
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
        """Whether changes of this collection are among those that are read."""
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
    """One collection's way to one stream."""

    name: str
    source: Source
    sink: Sink = field(default_factory=Sink)
    checkpoint: CheckpointPlace | None = None
    """None: beside the positions of all other watchers, in the state database, under the watcher's name."""
    start: Start = field(default_factory=Start)
    on_history_lost: OnHistoryLost = "fail"

    @property
    def space(self) -> str:
        """The filter that covers every subject this watcher publishes to."""
        return subjects.space(
            self.sink.subject,
            stream=self.sink.stream,
            database=self.source.database,
            collection=self.source.collection,
        )

    def subject(self, operation: str) -> str:
        """The subject of a change with this operation."""
        return subjects.render(
            self.sink.subject,
            stream=self.sink.stream,
            database=self.source.database,
            collection=self.source.collection,
            operation=operation,
        )

    @property
    def longest_subject(self) -> int:
        """The bytes of the longest subject it may publish to."""
        return max(len(self.subject(operation).encode()) for operation in (*self.sink.operations, "gap"))

    @property
    def route(self) -> "Route":
        """What the watcher's position is a position of: which changes go where."""
        source = self.source
        selected = [list(source.pipeline), source.show_expanded_events, sorted(self.sink.operations)]
        selection = hashlib.sha256(json.dumps(selected, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return Route(self.sink.stream, self.sink.subject, selection)

    def on_route(self, route: "Route") -> "Watcher":
        """The watcher as it was when it published by `route`, as far as its place on the stream goes."""
        return replace(self, sink=replace(self.sink, stream=route.stream, subject=route.subject))

    def with_defaults(self) -> "Watcher":
        """Fill in what follows from the collection's name: stream, and checkpoint collection where a place is named."""
        place = self.checkpoint
        return replace(
            self,
            sink=replace(self.sink, stream=self.sink.stream or subjects.escape(self.source.collection.upper())),
            checkpoint=place and replace(place, collection=place.collection or self.source.collection),
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
        "sink.stream": sink.stream, "sink.subject": sink.subject,
    }  # fmt: skip
    if checkpoint is not None:
        names |= {"checkpoint.database": checkpoint.database, "checkpoint.collection": checkpoint.collection}
    for where, name in names.items():
        wrong(where, None if is_text(name) else HALF)
    if found:
        return found
    wrong("name", name_problem(watcher.name))
    for where in ("source.database", "checkpoint.database"):
        if where in names:
            wrong(where, _database_problem(names[where]))
            if names[where].lower() == state_database.lower():  # MongoDB tells no two databases apart by case alone
                wrong(where, f"is {names[where]}, which holds Changewire's own state")
    wrong("source.collection", _collection_problem(source.database, source.collection))
    if checkpoint is not None:
        wrong("checkpoint.collection", _collection_problem(checkpoint.database, checkpoint.collection))
        wrong("checkpoint.size_in_bytes", checkpoint.size_problem)
    found += outside(watcher, allowed)
    wrong("source.pipeline", None if javascript else javascript_problem(source))
    if checkpoint is not None and source.namespace == checkpoint.namespace:
        wrong("checkpoint.collection", "is the watched collection; each checkpoint would be a change")
    wrong(
        "sink.stream", subjects.stream_name_problem(sink.stream) or subjects.stream_name_problem(sink.stream + SUFFIX)
    )
    template = subjects.template_problem(sink.subject)
    wrong("sink.subject", template)
    if template is None:
        wrong("sink.subject", subjects.subject_problem(watcher.subject("insert")))
        if watcher.longest_subject > subjects.MAX_SUBJECT:
            wrong(
                "sink.subject",
                f"makes subjects of up to {watcher.longest_subject:,} bytes; NATS accepts {subjects.MAX_SUBJECT:,}",
            )
        if meets_letters(watcher.space, sink.stream):
            wrong("sink.subject", f"overlaps with the subjects of its own dead letters, {letters_space(sink.stream)}")
    for operation in sink.operations:
        if operation not in OPERATIONS:
            wrong(
                "sink.operations", f"has an unknown operation {operation!r}; known operations: {', '.join(OPERATIONS)}"
            )
    if not sink.operations:
        wrong("sink.operations", "is empty: nothing would be published")
    if watcher.start.at == "token" and not is_token(str(watcher.start.value)):
        wrong("start.token", "is not a resume token: the hexadecimal _data string that MongoDB issues")
    return found


def javascript_in(pipeline: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first operator of a pipeline, wherever it stands, that runs JavaScript in the server."""
    left: list[Any] = list(pipeline)
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            found = JAVASCRIPT.intersection(value)
            if found:
                return min(found)
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
    return None


def javascript_problem(source: Source) -> str | None:
    """Say in a sentence why a pipeline may not be run where JavaScript is not allowed, or return None."""
    operator = javascript_in(source.pipeline)
    if operator is None:
        return None
    return (
        f"uses {operator}, which runs JavaScript in the MongoDB server: write it with other operators, or set "
        "CHANGEWIRE_ALLOW_SERVER_SIDE_JAVASCRIPT to true if everyone who may change watchers may run it"
    )


def problems_when_added(watcher: Watcher) -> list[FieldProblem]:
    """List what is wrong with the names that a watcher brings, where it is added or gets another stream.

    One that runs already, or comes from mongodb-nats-connector's file, keeps the name that it has."""
    stream = watcher.sink.stream
    bucket = bucket_problem(bucket_of(letters_of(stream)))
    found = behind_problem(stream) or (bucket and f"{bucket}, which holds changes too large for a message")
    return [FieldProblem("sink.stream", found)] if found else []


def outside(watcher: Watcher, allowed: Namespaces | None) -> list[FieldProblem]:
    """List what of a watcher leads to a collection that is not among those `allowed`; see `problems`."""
    if allowed is None:
        return []
    source, place = watcher.source, watcher.checkpoint
    found = allowed.problems(source.database, source.collection, "source")
    if place is not None and place.database != TOKENS_DATABASE:
        found += allowed.problems(place.database, place.collection, "checkpoint")
    return found


def name_problem(name: str) -> str | None:
    """Say in a sentence why `name` cannot name a watcher, or return None."""
    if not name or len(name) > MAX_NAME:
        return f"must have 1 to {MAX_NAME} characters"
    if name in (".", ".."):
        return "cannot be . or .., which have another meaning in a URL"
    if any(character in "/\\?#%" or character.isspace() or not character.isprintable() for character in name):
        return "may not hold a slash, ?, #, %, white space or a control character: it is part of a URL"
    return None


def _database_problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name.encode()) > 63:
        return "is longer than the 63 bytes that MongoDB allows"
    if any(character in '/\\. "$\0' for character in name):
        return "holds a character that MongoDB does not allow in a database's name (/ \\ . \" $ a space or NUL)"
    if name in SYSTEM_DATABASES:
        return f"is {name}, a system database; use another one"
    return None


def _collection_problem(database: str, name: str) -> str | None:
    if not name:
        return "is empty"
    if len(f"{database}.{name}".encode()) > MAX_NAMESPACE:
        return (
            f"is too long: MongoDB allows {MAX_NAMESPACE} bytes for {database[:63]}, a dot and the collection together"
        )
    if "\0" in name or "$" in name or name.startswith(".") or name.endswith("."):
        return "is not a collection's name: no $, no NUL, no dot at either end"
    if name.startswith("system."):
        return "is a system collection, which cannot be watched"
    return None


def apart(name: str, stream: str) -> str:
    """Return what a watcher, or its position's collection, is called beside another of its collection."""
    return f"{name}@{stream.replace('%', '_')}"


def to_document(watcher: Watcher) -> dict[str, Any]:
    """Return the watcher in the shape of the HTTP interface, without `paused` (that is desired state)."""
    # Without the pipeline, of which `asdict` would copy every value.
    document = asdict(replace(watcher, source=replace(watcher.source, pipeline=())))
    document["source"]["pipeline"] = [dict(stage) for stage in watcher.source.pipeline]
    document["sink"]["operations"] = list(watcher.sink.operations)
    document["start"] = start_to_document(watcher.start)
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
    source = dict(document["source"])
    source["pipeline"] = tuple(source.get("pipeline") or ())
    sink = dict(document.get("sink") or {})
    if "operations" in sink:
        sink["operations"] = tuple(sink["operations"])
    rest = {key: value for key, value in document.items() if key in ("name", "on_history_lost")}
    place = document.get("checkpoint")
    return Watcher(
        source=Source(**source),
        sink=Sink(**sink),
        checkpoint=None if place is None else CheckpointPlace(**place),
        start=start_from_document(document.get("start") or {"at": "latest"}),
        **rest,
    ).with_defaults()


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
