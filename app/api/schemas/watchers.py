"""The shapes of the calls that list, add, change and remove watchers: a watcher as it is sent, and as it is answered.

What can be checked only together with other fields, or by asking a server, is checked in `domain/watcher.py` and the
registry.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from app.api.problems import MANY, ONE
from app.api.schemas.base import MAX_ITEMS, Query, Shape, to_json
from app.api.schemas.status import StatusAnswer
from app.api.schemas.values import INT64, Pipeline, Seconds, StartAt, not_empty
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import FieldProblem
from app.domain.lifecycle import Desired, State
from app.domain.status import WatcherView
from app.domain.watcher import (
    OPERATIONS,
    PUBLISHED,
    OnHistoryLost,
    Sink,
    Source,
    Start,
    StoredWatcher,
    StreamSettings,
    Watcher,
    WithSnapshot,
    from_document,
    start_to_document,
)


def shown_first(example: str) -> Any:
    """Describe a field that is not required, and that a form shows at once all the same."""
    return Field(examples=[example], json_schema_extra={"x-first": True})


class SourceShape(Shape):
    """Where changes are read: one collection, a whole database, or the whole deployment."""

    database: Annotated[str | None, AfterValidator(not_empty), shown_first("shop")] = None
    """The database; not a system database, and not the service's own. Left out: the whole deployment."""
    collection: Annotated[str | None, AfterValidator(not_empty), shown_first("orders")] = None
    """The collection. It need not exist yet. Left out: every collection of the database, also those created later."""
    include: Annotated[list[str], Field(max_length=MAX_ITEMS, examples=[["orders_*"]])] = Field(default=[])
    """Where no collection is named: only those that fit one of these patterns. `*` stands for any characters, `?` for
    one. Where the deployment is watched, a pattern is `database.collection`, such as `shop.*`."""
    exclude: Annotated[list[str], Field(max_length=MAX_ITEMS, examples=[["orders_tmp"]])] = Field(default=[])
    """Where no collection is named: none that fits one of these patterns."""
    pipeline: Pipeline = Field(default=[])
    """Aggregation stages after `$changeStream`, for example `[{"$match": {"operationType": "insert"}}]`. They must not
    change the event's `_id`, and may have at most 256 KiB as JSON."""
    full_document: Literal["default", "updateLookup", "whenAvailable", "required"] | None = "updateLookup"
    """Which version of the document an update carries, as in MongoDB's `fullDocument`."""
    full_document_before_change: Literal["off", "whenAvailable", "required"] | None = "whenAvailable"
    """Whether a change carries the document as it was before, as in MongoDB's `fullDocumentBeforeChange`."""
    pre_and_post_images: bool = False
    """Create the collection with pre- and post-images, or switch them on."""
    show_expanded_events: bool = False
    """Watch DDL events too, such as `create` and `createIndexes`."""

    @staticmethod
    def of(source: Source) -> "SourceShape":
        return SourceShape.model_construct(
            database=source.database or None,
            collection=source.collection or None,
            include=list(source.include),
            exclude=list(source.exclude),
            pipeline=[dict(stage) for stage in source.pipeline],
            full_document=cast("Any", source.full_document),
            full_document_before_change=cast("Any", source.full_document_before_change),
            pre_and_post_images=source.pre_and_post_images,
            show_expanded_events=source.show_expanded_events,
        )


class SinkShape(Shape):
    """Where changes are published. The limits apply only when Changewire creates the stream."""

    stream: Annotated[str, Field(examples=["ORDERS"])] = ""
    """The stream. Empty: the name of what is watched in capitals: of the collection, or else the database, or else
    `DEPLOYMENT`."""
    subject: str = "{stream}.{operation}"
    """Template of the subject. Fields: `{stream}`, `{database}`, `{collection}`, `{operation}`. Left out where a whole
    database is watched: `{stream}.{collection}.{operation}`; the deployment:
    `{stream}.{database}.{collection}.{operation}`."""
    operations: Annotated[list[str], WithJsonSchema({"type": "array", "items": {"enum": list(OPERATIONS)}})] = Field(
        default=list(PUBLISHED)
    )
    """The operations to publish."""
    oversize: Literal["claim_check", "fail", "dead_letter"] = "claim_check"
    """What happens to a message larger than the server accepts: `claim_check` puts the body into the object store and
    publishes a pointer, `fail` stops the watcher, `dead_letter` sets the change aside in the stream `<stream>-DLQ`."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Copies of the stream in a NATS cluster."""
    max_age_seconds: Seconds = 0
    """Age at which messages expire; 0: never."""
    max_bytes: Annotated[int, Field(ge=-1, lt=INT64)] = -1
    """The stream's size limit; -1: none."""
    duplicate_window_seconds: Seconds = 120
    """The stream's duplicate window. Changewire does not rely on it."""
    stream_settings: StreamSettings = "changewire"
    """`changewire` switches fast ingest, atomic batches and direct reads on, as far as the server has them, also for an
    existing stream. `connector` creates the stream as mongodb-nats-connector does and never changes an existing one, so
    that the connector can start again."""

    @staticmethod
    def of(sink: Sink) -> "SinkShape":
        return SinkShape.model_construct(
            stream=sink.stream,
            subject=sink.subject,
            operations=list(sink.operations),
            oversize=sink.oversize,
            replicas=sink.replicas,
            max_age_seconds=sink.max_age_seconds,
            max_bytes=sink.max_bytes,
            duplicate_window_seconds=sink.duplicate_window_seconds,
            stream_settings=sink.stream_settings,
        )


class CheckpointShape(Shape):
    """A collection of its own for the watcher's position."""

    database: Annotated[str, shown_first("resume-tokens")] = "resume-tokens"
    collection: Annotated[str, shown_first("orders")] = ""
    """Empty: the name of what is watched: of the collection, or else the database, or else `deployment`."""
    capped: bool = False
    """Create it as a capped collection of `size_in_bytes`."""
    size_in_bytes: Annotated[int, Field(ge=0, lt=INT64)] = 0
    """The size of a capped collection."""

    @staticmethod
    def of(place: CheckpointPlace) -> "CheckpointShape":
        return CheckpointShape.model_construct(
            database=place.database,
            collection=place.collection,
            capped=place.capped,
            size_in_bytes=place.size_in_bytes,
        )


class StartShape(Shape):
    """Where a watcher without a stored position begins."""

    at: StartAt = "latest"

    @staticmethod
    def of(start: Start) -> "StartShape":
        return StartShape.model_construct(**start_to_document(start))


class WatcherShape(Shape):
    """A watcher: publishes the changes of a collection, a database or the deployment to one stream."""

    name: Annotated[str, Field(examples=["orders"])] = ""
    """Optional in a PUT, whose URL has it."""
    source: SourceShape
    sink: SinkShape = SinkShape()
    checkpoint: CheckpointShape | None = None
    """Without one (null) the position is kept beside those of the other watchers, in `checkpoints` of the state
    database."""
    start: StartShape = StartShape()
    on_history_lost: OnHistoryLost = "fail"
    """What happens when the oplog no longer reaches back to the position, or the stream was deleted and recreated.
    `fail` stops the watcher. `latest` continues from now and `earliest` from the beginning of the oplog, both after a
    message that marks the gap."""
    snapshot: WithSnapshot = "none"
    """`initial` begins a snapshot when the watcher is added: the documents that exist are published too, each once, at
    its exact place among the changes. `only` publishes the documents and no change, and the position moves on all the
    same. Put later, either of them begins nothing: `POST /watchers/{name}/snapshot` begins another snapshot."""
    paused: bool = False
    """Create the watcher paused."""

    @model_validator(mode="before")
    @classmethod
    def _without_status(cls, given: Any) -> Any:
        """What GET answers can be sent back in a PUT: its `status` is ignored."""
        if not isinstance(given, dict) or "status" in cls.model_fields:
            return given
        return {key: value for key, value in given.items() if key != "status"}

    @property
    def explicit_start(self) -> bool:
        """Whether the user wrote where to start."""
        return "start" in self.model_fields_set

    @classmethod
    def other_problems(
        cls,
        given: Any,
        wrong: Sequence[Sequence[int | str]],
        rules: Callable[[Watcher], Iterable[FieldProblem]],
    ) -> Iterator[FieldProblem]:
        """Yield what the rules find in a body as it was sent, beside the places in it that have the wrong form.

        Those are left out, and where the source is among them another one is put in its place. So only what the rules
        say of a field that was sent, and is of the right form, is about the body."""
        if not isinstance(given, dict):
            return
        rest, parts = given, {str(place[0]) for place in wrong if place}
        for place in wrong:
            rest = _without(rest, place)
        if "source" in parts:
            rest = {**rest, "source": _ANY_SOURCE}
        try:
            watcher = WatcherShape.model_validate(rest).to_watcher()
        except ValidationError:
            return
        for problem in rules(watcher):
            part = problem.field.partition(".")[0]
            sent = part not in _WITH_DEFAULTS or _has(rest, problem.field.split("."))
            if sent and not (part == "source" and part in parts):
                yield problem

    def to_watcher(self, name: str | None = None) -> Watcher:
        """The domain's watcher, its missing fields filled in; `name` wins over the body's."""
        document = self.model_dump(exclude_unset=True, exclude={"paused"})
        return from_document(document | {"name": self.name if name is None else name})


_ANY_SOURCE = {"database": "any-database", "collection": "any-collection"}
_WITH_DEFAULTS = frozenset({"name", "sink", "checkpoint"})
"""The parts in which something that is left out is made from the source, or stands in the URL."""


def _without(given: Any, place: Sequence[int | str]) -> Any:
    """A copy without what is at a place; a list, or a value that the place does not lead through, goes as a whole."""
    if not place or not isinstance(given, dict) or place[0] not in given:
        return given
    first, *rest = place
    others = {key: value for key, value in given.items() if key != first}
    inside = given[first]
    if rest and isinstance(inside, dict) and rest[0] in inside:
        others[first] = _without(inside, rest)
    return others


def _has(given: Any, path: Sequence[str]) -> bool:
    """Whether a field was sent. A list has all of its places."""
    for step in path:
        if not isinstance(given, dict):
            return isinstance(given, list)
        if step not in given:
            return False
        given = given[step]
    return True


WATCHER_EXAMPLE: dict[str, Any] = {
    "name": "orders",
    "source": {"database": "shop", "collection": "orders"},
    "sink": {"stream": "ORDERS", "subject": "{stream}.{operation}"},
    "start": {"at": "latest"},
}


class NewWatcher(WatcherShape):
    """A watcher to add. Required: `name` and `source`."""

    model_config = ConfigDict(json_schema_extra={"example": WATCHER_EXAMPLE})

    name: Annotated[str, Field(examples=["orders"])]


MAX_ADDED = 1000
"""Watchers of one request."""


def _form(given: Any) -> str:
    return MANY if isinstance(given, list) else ONE


Additions = Annotated[
    Annotated[NewWatcher, Tag(ONE)] | Annotated[list[NewWatcher], Field(min_length=1, max_length=MAX_ADDED), Tag(MANY)],
    Discriminator(_form),
]


class WatcherAnswer(WatcherShape):
    """A watcher with all defaults filled in, and its status."""

    status: StatusAnswer

    @staticmethod
    def of(view: WatcherView, status: StatusAnswer | None = None) -> "WatcherAnswer":
        """`status`: in place of that of the view."""
        watcher = view.stored.watcher
        return WatcherAnswer.model_construct(
            name=watcher.name,
            source=SourceShape.of(watcher.source),
            sink=SinkShape.of(watcher.sink),
            checkpoint=None if watcher.checkpoint is None else CheckpointShape.of(watcher.checkpoint),
            start=StartShape.of(watcher.start),
            on_history_lost=watcher.on_history_lost,
            snapshot=watcher.snapshot,
            paused=view.stored.desired is Desired.PAUSED,
            status=StatusAnswer.of(view.status) if status is None else status,
        )


class WrittenWatchers:
    """Watchers as JSON, for those who list all of them again and again: a definition that is the same is written once.

    It is most of an answer and of the time that this takes, and changes only when somebody changes the watcher."""

    def __init__(self) -> None:
        self._definitions: dict[str, tuple[StoredWatcher, bytes]] = {}

    def write(self, view: WatcherView) -> bytes:
        """Return the JSON of `WatcherAnswer.of(view)`."""
        stored, definition = self._definitions.get(view.stored.name, (None, b""))
        if stored is not view.stored:
            definition = to_json(WatcherAnswer.of(view), without={"status"})[:-1] + b',"status":'
            self._definitions[view.stored.name] = view.stored, definition
        return definition + to_json(StatusAnswer.of(view.status)) + b"}"

    def forget_all_but(self, names: Container[str]) -> None:
        """Those that are removed, or run elsewhere, are not kept."""
        for name in [each for each in self._definitions if each not in names]:
            del self._definitions[name]


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class Listing(Query):
    """The query of `GET /watchers`."""

    state: Annotated[State, BeforeValidator(_upper), Field(description="Only watchers in this state.")] | None = None


class Trial(Query):
    """The query of calls that can be tried out."""

    dry_run: bool = Field(default=False, description="Check everything and change nothing.")


class Removal(Query):
    """The query of `DELETE /watchers/{name}`."""

    checkpoint: Literal["keep", "delete"] = Field(
        default="keep",
        description="`delete` deletes the stored position too. After `keep` a watcher of this name continues from it.",
    )
