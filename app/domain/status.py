"""What is answered about a watcher and about the service: states, lags, positions. Times are seconds since 1970."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from app.domain.lifecycle import State
from app.domain.snapshot import Snapshot
from app.domain.watcher import StoredWatcher


@dataclass(frozen=True, slots=True)
class ErrorSeen:
    """The last error of a watcher; `count` is how often it occurred in a row."""

    type: str
    message: str
    time: float
    count: int


@dataclass(frozen=True, slots=True)
class Happening:
    """A state that a watcher entered, or an error in that state; `count` is how often it occurred in a row."""

    state: State
    time: float
    """When it first occurred."""
    last: float
    """When it last occurred."""
    reason: str | None = None
    count: int = 1


class Reads(NamedTuple):
    """Which change stream a watcher reads from."""

    shared: bool
    """Whether other watchers read from it too."""
    why: str | None = None
    """Why it is one of its own."""
    note: str | None = None
    """What a person should know about its source, and is no error."""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """The run of a watcher's snapshot that is running, or the last one."""

    run: Snapshot
    waits: str | None = None
    """Why no documents are read now, though the run is running."""
    rows_per_second: float = 0.0
    """How many documents were published over the last ten seconds."""
    estimated_end: float | None = None
    """When it is done if it goes on as in the last minute; None where that cannot be told."""


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a watcher. Rates are changes per second, over the last ten seconds and the last minute."""

    state: State
    since: float
    reason: str | None = None
    last_error: ErrorSeen | None = None
    restarts: int = 0
    published: int = 0
    skipped: int = 0
    rate_10s: float = 0.0
    rate_60s: float = 0.0
    publish_mode: str | None = None
    """`fast_ingest`, `atomic`, `window` or `single`; None until the stream was reached."""
    fence: str | None = None
    """`stream` if the stream is the watcher's alone, else `subject`; None until the stream was reached."""
    reads: Reads | None = None
    """None until it has read."""
    dead_letters: int | None = None
    """None until they were counted; another instance may have added more since."""
    notes: tuple[str, ...] = ()
    """Information that is no error, such as the reason for a slower publish mode."""
    overdue: str | None = None
    """What should have been published long ago, in any state; None if nothing."""
    snapshot: SnapshotView | None = None
    instance: str | None = None
    """The instance that runs it; None where nobody does."""
    as_of: float | None = None
    """Where the instance that runs it could not be asked: when it was so. None: now."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a watcher is behind. None: not known yet; `oplog_headroom_why` says why the headroom is not known."""

    seconds: float | None
    oplog_headroom_seconds: float | None
    oplog_headroom_why: str | None
    last_event_at: float | None
    checkpoint_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class TokenView:
    """A watcher's stored position. `token` is None before its first start."""

    token: str | None
    cluster_time: float | None
    stream_sequence: int | None
    epoch: int
    updated_at: float | None


@dataclass(frozen=True, slots=True)
class WatcherView:
    """A watcher with its status."""

    stored: StoredWatcher
    status: Status


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the service. `reason`: why it is not up. `warnings`: what will go wrong unless somebody acts."""

    up: bool
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """The service as its probes see it; the components are `mongo`, `nats` and `watchers`."""

    components: Mapping[str, Component]

    @property
    def up(self) -> bool:
        return all(component.up for component in self.components.values())
