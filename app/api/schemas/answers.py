"""What the HTTP interface answers: shapes for OpenAPI, and functions that make those answers from the domain's values.

Answers are made directly, not validated against the shapes on the way out (a test does that): a stored watcher of an
earlier version must never turn a GET into an error. Times are ISO 8601 in UTC, with milliseconds.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.requests import TIMESTAMP_EXAMPLE, TOKEN_EXAMPLE, WatcherShape
from app.config.logging import redact
from app.domain.dead_letters import DeadLetter, Replay
from app.domain.lifecycle import State
from app.domain.status import Health, Lag, Status, TokenView, WatcherView
from app.domain.watcher import to_document

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=[TIMESTAMP_EXAMPLE])]

SHOWN_BYTES = 1024 * 1024
"""A larger event is not answered; the object store has it, or the dead-letter stream."""
WELL = frozenset({State.RUNNING, State.PAUSED, State.FENCED})
"""The states in which a watcher does what it should: also standing by for another instance, or still when asked to."""


class Answer(BaseModel):
    """What every answer has in common."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ErrorAnswer(Answer):
    """The last error of a watcher."""

    type: str
    message: str
    time: Time
    count: int
    """How often it occurred in a row."""


class EventsAnswer(Answer):
    """Changes since this process started."""

    published: int
    skipped: int


class RatesAnswer(Answer):
    """Published changes per second."""

    last_10s: float
    last_60s: float


class StatusAnswer(Answer):
    """The status of a watcher."""

    state: State
    since: Time
    reason: str | None
    """Why it is in this state, and what to do. Null when there is nothing to say."""
    last_error: ErrorAnswer | None
    restarts: int
    events: EventsAnswer
    rates: RatesAnswer
    publish_mode: Literal["atomic", "window", "single"] | None
    """How batches are published. Null until the stream was reached."""
    fence: Literal["stream", "subject"] | None
    """`stream` when the stream is the watcher's alone, else `subject`. Null until the stream was reached."""
    dead_letters: int | None
    """How many changes are set aside, as far as this instance knows. Null until they were counted."""
    notes: list[str]
    """Information that is no error, such as the reason for a slower publish mode."""


class WatcherAnswer(WatcherShape):
    """A watcher with all defaults filled in, and its status."""

    status: StatusAnswer


class HealthAnswer(Answer):
    """Whether a watcher is healthy."""

    status: Literal["UP", "DOWN"]
    state: State
    reason: str | None = None


class LagAnswer(Answer):
    """How far a watcher is behind."""

    seconds: float | None
    """Between the server's operation time and the watcher's position. Null until it is known."""
    oplog_headroom_seconds: float | None
    """Seconds of oplog before the position. At 0, history is lost. Null when it is not known."""
    oplog_headroom_why: str | None
    """Why the headroom is not known."""
    last_event_at: Time | None
    checkpoint_age_seconds: float | None


class TokenAnswer(Answer):
    """A watcher's stored position."""

    token: Annotated[str, Field(examples=[TOKEN_EXAMPLE])] | None
    """The resume token's `_data`. Null before the first start."""
    cluster_time: Time | None
    stream_sequence: int | None
    epoch: int
    updated_at: Time | None


class LetterAnswer(Answer):
    """A dead letter: a change that could not be published."""

    sequence: int
    """Its place in the dead-letter stream, which identifies it."""
    token: Annotated[str, Field(examples=[TOKEN_EXAMPLE])]
    operation: str
    reason: str
    """`not_encodable`: the event cannot be written as JSON. `oversize`: its message is too large for the server."""
    error: str
    """The same in words."""
    time: Time
    """When it was set aside."""
    bytes: int
    """The event's size as BSON."""
    in_object_store: bool
    """Whether the event is in the object store, because no message can hold it."""
    document_key: Any
    """The key of the changed document. Null when it is not known."""
    reduced: list[str]
    """The fields that the event lacks, because MongoDB could not send it with them."""


class WholeLetterAnswer(LetterAnswer):
    """A dead letter with its event."""

    object: str | None
    """Where in the object store the event is, as `<bucket>/<name>`."""
    bson: str | None
    """The event as BSON in Base64. Null when it is larger than 1 MiB, or gone from the object store."""
    event: Any
    """The event as JSON. Null when it cannot be written as JSON, or is larger than 1 MiB."""


class LettersAnswer(Answer):
    """Dead letters, oldest first."""

    total: int
    """How many the watcher has."""
    dead_letters: list[LetterAnswer]
    after: int | None
    """The value of `after` for the next page. Null on the last page."""


class ReplayAnswer(Answer):
    """A dead letter that was replayed."""

    token: Annotated[str, Field(examples=[TOKEN_EXAMPLE])]
    stream_sequence: int
    """Its message's place on the watcher's stream."""
    message_id: str


class ComponentAnswer(BaseModel):
    """A part of the service; `watchers` also has its counts by state, in lower case.

    `warnings` say what will go wrong unless somebody acts. They do not make the component DOWN."""

    model_config = ConfigDict(extra="allow")

    status: Literal["UP", "DOWN"]
    reason: str | None = None
    warnings: list[str] | None = None


class ServiceAnswer(Answer):
    """The service as a whole, in the form of mongodb-nats-connector."""

    status: Literal["UP", "DOWN"]
    components: dict[str, ComponentAnswer]


class ProbeAnswer(Answer):
    """The answer to a probe."""

    status: Literal["UP", "DOWN"]
    reason: str | None = None


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def watcher(view: WatcherView) -> dict[str, Any]:
    document = to_document(view.stored.watcher)
    # As it was written, whether a default or given: 0 and 3600, not 0 beside 3600.0.
    for field in ("max_age_seconds", "duplicate_window_seconds"):
        document["sink"][field] = _plain(document["sink"][field])
    return document | {"paused": view.stored.desired == "PAUSED", "status": status(view.status)}


def status(value: Status) -> dict[str, Any]:
    error = value.last_error
    return {
        "state": value.state,
        "since": moment(value.since),
        "reason": said(value.reason),
        "last_error": error
        and {"type": error.type, "message": said(error.message), "time": moment(error.time), "count": error.count},
        "restarts": value.restarts,
        "events": {"published": value.published, "skipped": value.skipped},
        "rates": {"last_10s": round(value.rate_10s, 3), "last_60s": round(value.rate_60s, 3)},
        "publish_mode": value.publish_mode,
        "fence": value.fence,
        "dead_letters": value.dead_letters,
        "notes": list(value.notes),
    }


def watcher_health(value: Status) -> dict[str, Any]:
    well = value.state in WELL and value.overdue is None
    answer: dict[str, Any] = {"status": up(well), "state": value.state}
    if well:
        return answer
    last = value.last_error.message if value.last_error is not None else None
    why = value.reason if value.overdue is None else f"it {value.overdue}: {value.reason or last or 'no error yet'}"
    return answer | {"reason": said(why) or f"the watcher is {value.state}"}


def lag(value: Lag) -> dict[str, Any]:
    return {
        "seconds": _thousandths(value.seconds),
        "oplog_headroom_seconds": _thousandths(value.oplog_headroom_seconds),
        "oplog_headroom_why": value.oplog_headroom_why,
        "last_event_at": moment(value.last_event_at),
        "checkpoint_age_seconds": _thousandths(value.checkpoint_age_seconds),
    }


def token(value: TokenView) -> dict[str, Any]:
    return {
        "token": value.token,
        "cluster_time": moment(value.cluster_time),
        "stream_sequence": value.stream_sequence,
        "epoch": value.epoch,
        "updated_at": moment(value.updated_at),
    }


def letter(value: DeadLetter) -> dict[str, Any]:
    return {
        "sequence": value.sequence,
        "token": value.token,
        "operation": value.operation,
        "reason": value.reason,
        "error": said(value.error),
        "time": moment(value.time),
        "bytes": value.size,
        "in_object_store": value.object is not None,
        "document_key": None if value.key is None else json.loads(value.key),
        "reduced": value.reduced.split(", ") if value.reduced else [],
    }


def whole_letter(value: DeadLetter, body: bytes | None) -> dict[str, Any]:
    """For orjson: the event is not parsed, and stands in the answer as it would in the message."""
    raw = value.raw if value.raw is not None and len(value.raw) <= SHOWN_BYTES else None
    shown = body is not None and len(body) <= SHOWN_BYTES
    return letter(value) | {
        "object": value.object,
        "bson": None if raw is None else b64encode(raw).decode(),
        "event": orjson.Fragment(body) if body is not None and shown else None,
    }


def letters(total: int, found: Sequence[DeadLetter], limit: int) -> dict[str, Any]:
    more = len(found) == limit
    return {
        "total": total,
        "dead_letters": [letter(each) for each in found],
        "after": found[-1].sequence if more else None,
    }


def replay(value: Replay) -> dict[str, Any]:
    return {"token": value.token, "stream_sequence": value.sequence, "message_id": value.id}


def service(value: Health) -> dict[str, Any]:
    components: dict[str, Mapping[str, Any]] = {}
    for name, component in value.components.items():
        counts = {state.lower(): count for state, count in component.counts.items()}
        reason = {} if component.up else {"reason": said(component.reason) or "not known"}
        warnings = {"warnings": list(component.warnings)} if component.warnings else {}
        components[name] = {"status": up(component.up), **reason, **warnings, **counts}
    return {"status": up(value.up), "components": components}


def said(text: str | None) -> str | None:
    """A reason as it may be shown to everybody: servers' words are in it."""
    return None if text is None else redact(text)


def up(well: bool) -> str:
    return "UP" if well else "DOWN"


def _thousandths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number
