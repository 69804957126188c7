"""What a run of a watcher works with, traced: each run has a trail of its own."""

from app.domain.watcher import Watcher
from app.ports import ChangeSource, CheckpointStore, EventSink
from app.ports.tracer import Tracer
from app.tracing.checkpoints import TracedCheckpoints
from app.tracing.sink import TracedSink
from app.tracing.source import TracedSource
from app.tracing.trail import Trail


class TracedRuns:
    """`Tracing` of all runs of a process. `mark`: each message says in a header which publish it came with."""

    def __init__(self, tracer: Tracer, *, mark: bool) -> None:
        self._tracer = tracer
        self._mark = mark

    def of(
        self, watcher: Watcher, source: ChangeSource, sink: EventSink, checkpoints: CheckpointStore
    ) -> tuple[ChangeSource, EventSink, CheckpointStore]:
        tracer, trail = self._tracer, Trail()
        return (
            TracedSource(source, watcher, tracer, trail),
            TracedSink(sink, watcher, tracer, trail, mark=self._mark),
            TracedCheckpoints(checkpoints, watcher, tracer, trail),
        )
