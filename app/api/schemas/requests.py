"""The shapes of the HTTP interface: what it takes in, checked field by field, and what it answers.

Names and defaults are the contract's; the defaults themselves live in `domain/watcher.py`, and a test compares. What
can be told of a value only together with others, or by asking a server, is checked in the domain and the registry.
"""

import math
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)  # fmt: skip

from app.domain.lifecycle import State
from app.domain.text import HALF, is_text
from app.domain.tokens import is_token
from app.domain.watcher import (
    OPERATIONS,
    PUBLISHED,
    OnHistoryLost,
    Start,
    StreamSettings,
    Watcher,
    from_document,
    start_from_document,
)

MAX_SEQUENCE = 2**63 - 1
MAX_DEPTH = 100
"""Levels of nesting that MongoDB takes in a document."""
MAX_ITEMS = 200
"""Items of a list, or fields of an object, that are looked at one by one: what is wrong with each is an error."""
MAX_TEXT = 8192
"""Characters of a text outside of a pipeline. What each field takes is less, and its own problem says how much."""
MAX_PIPELINE = 256 * 1024
"""Bytes of a pipeline as JSON. It is in every list of watchers, and in the memory of every instance."""
_INT64 = 2**63

TOKEN_EXAMPLE = "8265920F90000000012B022C0100296E5A10046F6E65"
TIMESTAMP_EXAMPLE = "2026-01-01T00:00:00Z"


class Shape(BaseModel):
    """What every shape has in common: nothing unknown, nothing converted. Field docstrings are the descriptions."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """Count first: each unknown field would be an error."""
        if isinstance(given, dict) and len(given) > MAX_ITEMS:
            raise ValueError(f"has more than {MAX_ITEMS} fields")
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _of_bounded_size(cls, value: Any) -> Any:
        """Count first: each wrong item would be an error, and some checks take time with each character."""
        if isinstance(value, list) and len(value) > MAX_ITEMS:
            raise ValueError(f"has more than {MAX_ITEMS} items")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ValueError(f"is longer than {MAX_TEXT} characters")
        return value


def _storable(value: Any) -> Any:
    """Refuse what JSON can say and BSON or UTF-8 cannot. Without recursion, since it may be nested deeply."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, str):
            _encodable(each)
        elif isinstance(each, bool) or each is None:
            continue
        elif isinstance(each, int) and not -_INT64 <= each < _INT64:
            raise ValueError("holds a number beyond 64 bits, which MongoDB cannot store")
        elif isinstance(each, float) and not math.isfinite(each):
            raise ValueError("holds NaN or Infinity, which JSON does not have")
        elif isinstance(each, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"is nested deeper than {MAX_DEPTH} levels, which MongoDB does not accept")
            if isinstance(each, dict):
                for key in each:
                    if "\0" in _encodable(key):
                        raise ValueError("has a key with a NUL character, which MongoDB cannot store")
            waiting += [(inner, depth + 1) for inner in (each.values() if isinstance(each, dict) else each)]
    size = len(orjson.dumps(value))
    if size > MAX_PIPELINE:
        raise ValueError(f"has {size} bytes as JSON; the maximum is {MAX_PIPELINE}")
    return value


def _encodable(text: str) -> str:
    if not is_text(text):
        raise ValueError(HALF)
    return text


def _start_at(value: Any) -> Any:
    """Check `latest`, `earliest`, `{"timestamp": …}` or `{"token": …}`, with a sentence in place of a union's babel."""
    wanted = f'must be latest, earliest, {{"timestamp": "{TIMESTAMP_EXAMPLE}"}} or {{"token": "82…"}}'
    if isinstance(value, dict):
        match value:
            case {"timestamp": str(inner)} if len(value) == 1:
                return {"timestamp": _timestamp(inner)}
            case {"token": str(inner)} if len(value) == 1:
                return {"token": _token(inner)}
    if value not in ("latest", "earliest"):
        raise ValueError(wanted)
    return value


def _timestamp(text: str) -> str:
    try:
        moment = start_from_document({"timestamp": text}).value
    except (ValueError, OverflowError) as error:
        said = f": {error}" if "offset" in str(error) else ""
        raise ValueError(f"is not a time in ISO 8601{said}. Example: {TIMESTAMP_EXAMPLE}") from None
    if not 0 <= float(moment or 0) < 2**32:
        raise ValueError("is outside the range of MongoDB's clock (1970 to 2106)")
    return text


def _token(text: str) -> str:
    if not is_token(text):
        raise ValueError(
            "is not a resume token: the hexadecimal _data string that MongoDB issues, which starts with 82"
        )
    return text


_TOKEN_PATTERN = "^82([0-9A-Fa-f]{2}){8,}$"
_MOMENT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["timestamp"],
    "properties": {"timestamp": {"type": "string", "format": "date-time"}},
}
_TOKEN_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["token"],
    "properties": {"token": {"type": "string", "pattern": _TOKEN_PATTERN}},
}
StartAt = Annotated[
    Any,
    BeforeValidator(_start_at),
    WithJsonSchema({"anyOf": [{"type": "string", "enum": ["latest", "earliest"]}, _MOMENT_SCHEMA, _TOKEN_SCHEMA]}),
]
Stage = Annotated[dict[str, Any], Field(min_length=1)]


class SourceShape(Shape):
    """Where changes are read."""

    database: Annotated[str, Field(examples=["shop"])]
    """The database; not a system database, and not the service's own."""
    collection: Annotated[str, Field(examples=["orders"])]
    """The collection. It need not exist yet."""
    pipeline: Annotated[list[Stage], AfterValidator(_storable)] = []
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


class SinkShape(Shape):
    """Where changes are published. The limits apply only when Changewire creates the stream."""

    stream: Annotated[str, Field(examples=["ORDERS"])] = ""
    """The stream. Empty: the collection's name in capitals."""
    subject: str = "{stream}.{operation}"
    """Template of the subject. Fields: `{stream}`, `{database}`, `{collection}`, `{operation}`."""
    operations: Annotated[list[str], WithJsonSchema({"type": "array", "items": {"enum": list(OPERATIONS)}})] = list(
        PUBLISHED
    )
    """The operations to publish."""
    oversize: Literal["claim_check", "fail", "dead_letter"] = "claim_check"
    """What happens to a message larger than the server accepts: `claim_check` puts the body into the object store and
    publishes a pointer, `fail` stops the watcher, `dead_letter` sets the change aside in the stream `<stream>-DLQ`."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Copies of the stream in a NATS cluster."""
    max_age_seconds: Annotated[float, Field(ge=0, le=9e9)] = 0
    """Age at which messages expire; 0: never."""
    max_bytes: Annotated[int, Field(ge=-1, lt=_INT64)] = -1
    """The stream's size limit; -1: none."""
    duplicate_window_seconds: Annotated[float, Field(ge=0, le=9e9)] = 120
    """The stream's duplicate window. Changewire does not rely on it."""
    stream_settings: StreamSettings = "changewire"
    """`changewire` switches atomic batches and direct reads on, also for an existing stream. `connector` creates the
    stream as mongodb-nats-connector does and never changes an existing one, so that the connector can start again."""


class CheckpointShape(Shape):
    """The collection that stores the watcher's position."""

    database: str = "resume-tokens"
    collection: Annotated[str, Field(examples=["orders"])] = ""
    """Empty: the watched collection's name."""
    capped: bool = False
    """Create it as a capped collection of `size_in_bytes`."""
    size_in_bytes: Annotated[int, Field(ge=0, lt=_INT64)] = 0


class StartShape(Shape):
    """Where a watcher without a stored position begins."""

    at: StartAt = "latest"


class WatcherShape(Shape):
    """A watcher: publishes one collection's changes to one stream."""

    name: Annotated[str, Field(examples=["orders"])] = ""
    """Optional in a PUT, whose URL has it."""
    source: SourceShape
    sink: SinkShape = SinkShape()
    checkpoint: CheckpointShape = CheckpointShape()
    start: StartShape = StartShape()
    on_history_lost: OnHistoryLost = "fail"
    """What happens when the oplog no longer reaches back to the position, or the stream was deleted and recreated.
    `fail` stops the watcher. `latest` continues from now and `earliest` from the beginning of the oplog, both after a
    message that marks the gap."""
    paused: bool = False
    """Create the watcher paused."""

    @model_validator(mode="before")
    @classmethod
    def _without_status(cls, given: Any) -> Any:
        """What GET answers can be sent back: `status` is the service's to say, and nobody means to set it."""
        if not isinstance(given, dict) or "status" in cls.model_fields:
            return given
        return {key: value for key, value in given.items() if key != "status"}

    @property
    def explicit_start(self) -> bool:
        """Whether the user wrote where to start."""
        return "start" in self.model_fields_set

    def to_watcher(self, name: str | None = None) -> Watcher:
        """The domain's watcher, its missing fields filled in; `name` wins over the body's."""
        document = self.model_dump(exclude_unset=True, exclude={"paused"})
        return from_document(document | {"name": self.name if name is None else name})


WATCHER_EXAMPLE: dict[str, Any] = {
    "name": "orders",
    "source": {"database": "shop", "collection": "orders"},
    "sink": {"stream": "ORDERS", "subject": "{stream}.{operation}"},
    "start": {"at": "latest"},
}


class NewWatcher(WatcherShape):
    """A watcher to add. Required: `name`, `source.database` and `source.collection`."""

    model_config = ConfigDict(json_schema_extra={"example": WATCHER_EXAMPLE})

    name: Annotated[str, Field(examples=["orders"])]


class Position(Shape):
    """Where a watcher continues: exactly one of the three fields."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"timestamp": TIMESTAMP_EXAMPLE},
            "oneOf": [
                {"required": [each], "properties": {each: {"not": {"type": "null"}}}}
                for each in ("token", "timestamp", "at")
            ],
        }
    )

    token: (
        Annotated[
            str,
            AfterValidator(_token),
            Field(examples=[TOKEN_EXAMPLE], json_schema_extra={"pattern": _TOKEN_PATTERN}),
        ]
        | None
    ) = None
    """After the event with this resume token (the `_data` string)."""
    timestamp: (
        Annotated[
            str,
            AfterValidator(_timestamp),
            Field(examples=[TIMESTAMP_EXAMPLE], json_schema_extra={"format": "date-time"}),
        ]
        | None
    ) = None
    """From this time, ISO 8601 with an offset."""
    at: StartAt | None = None
    """`latest` or `earliest`."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Position":
        if sum(value is not None for value in (self.token, self.timestamp, self.at)) != 1:
            raise ValueError("must have exactly one of token, timestamp and at")
        return self

    def to_start(self) -> Start:
        if self.token is not None:
            return start_from_document({"token": self.token})
        if self.timestamp is not None:
            return start_from_document({"timestamp": self.timestamp})
        return start_from_document({"at": self.at})


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class Listing(BaseModel):
    """The query of `GET /watchers`."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[State, BeforeValidator(_upper), Field(description="Only watchers in this state.")] | None = None


class Trial(BaseModel):
    """The query of calls that can be tried out."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="Check everything and change nothing.")


class LetterPage(BaseModel):
    """The query of `GET /watchers/{name}/dead-letters`."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0, le=MAX_SEQUENCE, description="Begin after the dead letter with this sequence.")
    limit: int = Field(default=20, ge=1, le=100, description="The maximum number in one answer.")


class Removal(BaseModel):
    """The query of `DELETE /watchers/{name}`."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Literal["keep", "delete"] = Field(
        default="keep",
        description="`delete` deletes the stored position too. After `keep` a watcher of this name continues from it.",
    )
