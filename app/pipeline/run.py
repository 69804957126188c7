"""One run of one watcher as a value: what its parts have in common, handed to each of them whole.

A run is a capture or a stay in standby. Run state and run statistics outlive it; the ports are made for it and closed
at its end.
"""

from dataclasses import dataclass, field

from app.domain.position import Checkpoint, Reached
from app.domain.watcher import Route, StoredWatcher, Watcher
from app.pipeline.dependencies import Dependencies, Shared
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from app.ports import ChangeSource, CheckpointStore, DeadLetterQueue, EventSink, RowSource, SnapshotStore


@dataclass(frozen=True, slots=True)
class Ports:
    """One watcher's change stream, its place on a stream, its dead letters, its stored position, and its snapshot."""

    source: ChangeSource
    sink: EventSink
    letters: DeadLetterQueue
    checkpoints: CheckpointStore
    rows: RowSource
    snapshots: SnapshotStore


@dataclass(frozen=True, slots=True)
class Run:
    """What a run works on."""

    stored: StoredWatcher
    ports: Ports
    shared: Shared
    state: RunState
    statistics: RunStatistics
    route: Route = field(init=False)
    """The watcher's: every position has it, and it takes a while to work out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "route", self.stored.watcher.route)

    @classmethod
    def of(cls, stored: StoredWatcher, dependencies: Dependencies, state: RunState, statistics: RunStatistics) -> "Run":
        """Return a run with ports of its own to both servers."""
        mongo, nats, watcher = dependencies.mongo, dependencies.nats, stored.watcher
        source, sink, checkpoints = mongo.source(watcher), nats.sink(watcher), mongo.checkpoints(watcher)
        if dependencies.tracing is not None:
            source, sink, checkpoints = dependencies.tracing.of(watcher, source, sink, checkpoints)
        ports = Ports(source, sink, nats.letters(watcher), checkpoints, mongo.rows(watcher), mongo.snapshots())
        return cls(stored, ports, dependencies, state, statistics)

    @property
    def watcher(self) -> Watcher:
        return self.stored.watcher

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self.shared.clock()

    def checkpoint(self, reached: Reached) -> Checkpoint:
        """Return a position as it is stored. The source's `prepare` comes first."""
        return Checkpoint(
            token=reached.token,
            epoch=reached.epoch,
            sequence=reached.sequence,
            stream_created=reached.stream_created,
            scope=self.ports.source.scope,
            watcher=self.watcher.name,
            route=self.route,
            updated_at=self.now(),
            own=reached.own,
            counted=reached.counted,
            ahead=reached.ahead,
        )
