"""The shapes of the calls that ask how things are: a watcher's status, health, lag and history, and the probes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.api.schemas.base import Answer, Brief, Time, moment, shown
from app.api.schemas.snapshots import SnapshotAnswer
from app.domain.lifecycle import State
from app.domain.status import Component, ErrorSeen, Happening, Health, Lag, Status

WELL = frozenset({State.RUNNING, State.PAUSED, State.FENCED})
"""The states in which a watcher does what it should: also standing by for another instance, or still when asked to."""


class ErrorAnswer(Answer):
    """The last error of a watcher."""

    type: str
    message: str
    time: Time
    count: int
    """How often it occurred in a row."""

    @staticmethod
    def of(error: ErrorSeen) -> "ErrorAnswer":
        return ErrorAnswer(type=error.type, message=shown(error.message), time=moment(error.time), count=error.count)


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
    publish_mode: Literal["fast_ingest", "atomic", "window", "single"] | None
    """How changes are published: `fast_ingest`: one batch stays open while there is work; `atomic`: in batches that are
    stored wholly or not at all; `window`: single messages, sent together and each fenced by the one before; `single`:
    each message acknowledged before the next. Null until the stream was reached."""
    fence: Literal["stream", "subject"] | None
    """`stream` when the stream is the watcher's alone, else `subject`. Null until the stream was reached."""
    reads: Literal["shared", "own"] | None
    """Whether the change stream that it reads is shared with other watchers of its database. Null until it has read."""
    reads_why: str | None
    """Why it reads from a change stream of its own."""
    dead_letters: int | None
    """How many changes are set aside, as far as this instance knows. Null until they were counted."""
    notes: list[str]
    """Information that is no error, such as the reason for a slower publish mode and what to do about it."""
    snapshot: SnapshotAnswer | None
    """The snapshot that is running, or the last one. Null where none was ever begun."""
    instance: str | None
    """The instance that runs it. Null where nobody does."""
    as_of: Time | None
    """Null where the instance that runs the watcher has answered. Otherwise it could not be asked, and this is how the
    watcher was at that time."""

    @staticmethod
    def of(value: Status) -> "StatusAnswer":
        return StatusAnswer(
            state=value.state,
            since=moment(value.since),
            reason=shown(value.reason),
            last_error=None if value.last_error is None else ErrorAnswer.of(value.last_error),
            restarts=value.restarts,
            events=EventsAnswer(published=value.published, skipped=value.skipped),
            rates=RatesAnswer(last_10s=round(value.rate_10s, 3), last_60s=round(value.rate_60s, 3)),
            publish_mode=value.publish_mode,
            fence=value.fence,
            reads=None if value.reads is None else "shared" if value.reads.shared else "own",
            reads_why=None if value.reads is None else shown(value.reads.why),
            dead_letters=value.dead_letters,
            notes=list(value.notes),
            snapshot=None if value.snapshot is None else SnapshotAnswer.of(value.snapshot),
            instance=value.instance,
            as_of=moment(value.as_of),
        )


class HealthAnswer(Brief, Answer):
    """Whether a watcher is healthy."""

    status: Literal["UP", "DOWN"]
    state: State | None = None
    """Absent when the watchers cannot be read."""
    reason: str | None = None

    @staticmethod
    def of(value: Status) -> "HealthAnswer":
        well = value.state in WELL and value.overdue is None
        return HealthAnswer(
            status="UP" if well else "DOWN", state=value.state, reason=None if well else _why_down(value)
        )

    @staticmethod
    def unknown(reason: str) -> "HealthAnswer":
        """The watchers cannot be read, so its state is not known."""
        return HealthAnswer(status="DOWN", reason=shown(reason))


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
    as_of: Time | None
    """Null where the instance that runs the watcher has answered. Otherwise it could not be asked, and this is what the
    position tells that was stored at that time."""

    @staticmethod
    def of(value: Lag, as_of: float | None = None) -> "LagAnswer":
        return LagAnswer(
            seconds=_thousandths(value.seconds),
            oplog_headroom_seconds=_thousandths(value.oplog_headroom_seconds),
            oplog_headroom_why=value.oplog_headroom_why,
            last_event_at=moment(value.last_event_at),
            checkpoint_age_seconds=_thousandths(value.checkpoint_age_seconds),
            as_of=moment(as_of),
        )


class HappeningAnswer(Answer):
    """A state that a watcher entered, or an error in that state."""

    state: State
    time: Time
    """When it occurred first."""
    reason: str | None
    count: int
    """How often it occurred in a row."""
    last_time: Time
    """When it occurred last."""

    @staticmethod
    def of(value: Happening) -> "HappeningAnswer":
        return HappeningAnswer(
            state=value.state,
            time=moment(value.time),
            reason=shown(value.reason),
            count=value.count,
            last_time=moment(value.last),
        )


class ComponentAnswer(BaseModel):
    """A part of the service; `watchers` also has its counts by state, in lower case.

    `warnings` say what will go wrong unless somebody acts. They do not make the component DOWN."""

    model_config = ConfigDict(extra="allow")

    status: Literal["UP", "DOWN"]
    reason: str | None = None
    warnings: list[str] | None = None

    @staticmethod
    def of(value: Component) -> "ComponentAnswer":
        counts: dict[str, Any] = {state.lower(): count for state, count in value.counts.items()}
        return ComponentAnswer(
            status="UP" if value.up else "DOWN",
            reason=None if value.up else shown(value.reason) or "not known",
            warnings=list(value.warnings) or None,
            **counts,
        )


class ServiceAnswer(Brief, Answer):
    """The service as a whole, in the form of mongodb-nats-connector."""

    status: Literal["UP", "DOWN"]
    components: dict[str, ComponentAnswer]

    @staticmethod
    def of(value: Health) -> "ServiceAnswer":
        return ServiceAnswer(
            status="UP" if value.up else "DOWN",
            components={name: ComponentAnswer.of(component) for name, component in value.components.items()},
        )


class ProbeAnswer(Brief, Answer):
    """The answer to a probe."""

    status: Literal["UP", "DOWN"]
    reason: str | None = None

    @staticmethod
    def of(reason: str | None) -> "ProbeAnswer":
        """`reason` is why not; None where all is well."""
        return ProbeAnswer(status="UP" if reason is None else "DOWN", reason=shown(reason))


def _why_down(value: Status) -> str:
    last = value.last_error.message if value.last_error is not None else None
    why = value.reason if value.overdue is None else f"it {value.overdue}: {value.reason or last or 'no error yet'}"
    return shown(why) or f"the watcher is {value.state}"


def _thousandths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
