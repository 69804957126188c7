"""The ports: what `pipeline/` and `control/` need from outside, as protocols in the project's own terms.

    source.py               ChangeSource: one watcher's change stream      -> mongodb/
    row_source.py           RowSource: a snapshot's rows                   -> mongodb/
    snapshot_store.py       SnapshotStore: how far snapshots came          -> mongodb/
    checkpoint_store.py     CheckpointStore: its stored position           -> mongodb/
    watcher_store.py        WatcherStore: all watchers, and the instances  -> mongodb/
    sink.py                 EventSink: its subjects, and the fence         -> jetstream/
    dead_letter_queue.py    DeadLetterQueue: changes set aside             -> jetstream/
    stream_reader.py        StreamReader: its stream, to look at           -> jetstream/
    peers.py                Peers, Owners: the other instances            -> jetstream/, control/
    deployment.py           Mongo, Nats: each server as a whole            -> mongodb/, jetstream/
    observer.py             Observer: what is told, for metrics            -> metrics/
    tracer.py               Tracing, Tracer, Span: what is traced          -> tracing/

Each has a scripted fake in `tests/fakes/`, which passes the same contract suite as the adapter (`tests/contract`). No
vendor's type and no vendor's error crosses these lines: adapters raise the errors of `domain/errors.py`, with the
vendor's error as their cause.
"""

from app.ports.checkpoint_store import CheckpointStore
from app.ports.dead_letter_queue import DeadLetterQueue
from app.ports.deployment import Mongo, Nats
from app.ports.observer import Observer, Published
from app.ports.peers import Circle, Owners, Peers
from app.ports.row_source import Rows, RowSource
from app.ports.sink import EventSink
from app.ports.snapshot_store import SnapshotStore, Summary
from app.ports.source import ChangeSource, SourceBatch
from app.ports.stream_reader import StreamReader
from app.ports.tracer import Tracing
from app.ports.watcher_store import ALIVE_SECONDS, Check, WatcherStore

__all__ = [
    "ALIVE_SECONDS",
    "ChangeSource",
    "Check",
    "CheckpointStore",
    "Circle",
    "DeadLetterQueue",
    "EventSink",
    "Mongo",
    "Nats",
    "Observer",
    "Owners",
    "Peers",
    "Published",
    "RowSource",
    "Rows",
    "SnapshotStore",
    "SourceBatch",
    "StreamReader",
    "Summary",
    "Tracing",
    "WatcherStore",
]
