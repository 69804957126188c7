"""A deployment of MongoDB and an account of NATS, which hand out the other fakes."""

from collections.abc import Iterable

from app.domain.errors import SinkUnavailable
from app.domain.lag import Oplog
from app.domain.position import Checkpoint
from app.domain.snapshot import Snapshot
from app.domain.watcher import Start, Watcher
from tests.fakes.checkpoint_store import FakeCheckpoints
from tests.fakes.collections import FakeCollections
from tests.fakes.dead_letter_queue import FakeBox, FakeLetters
from tests.fakes.row_source import FakeRows
from tests.fakes.sink import FakeSink
from tests.fakes.snapshot_store import FakeSnapshots
from tests.fakes.source import BEGIN, FakeOplog, FakeSource
from tests.fakes.stream import FakeStream
from tests.fakes.stream_reader import FakeReader


class FakeMongo:
    """A deployment over one `FakeOplog`; every watcher has its own checkpoint place."""

    def __init__(self, oplog: FakeOplog, batch: int = 500) -> None:
        self.oplog = oplog
        self.batch = batch
        self.places: dict[str, dict[str, Checkpoint]] = {}
        self.runs: dict[str, Snapshot] = {}
        self.collections = FakeCollections(oplog)
        self.refusal: Exception | None = None
        self.undeletable: Exception | None = None
        self.existing: dict[str, list[str]] = {}
        """The collections that are suggested, by database."""
        self.full = False
        """Whether the oplog drops its oldest entries for new ones."""

    def expect(self, watchers: Iterable[Watcher]) -> None:
        list(watchers)

    async def ping(self) -> int:
        self.oplog.misbehave()
        return BEGIN + self.oplog.moment + 1

    async def read_oplog(self) -> Oplog | None:
        return Oplog(BEGIN + self.oplog.first, self.full)

    async def database_names(self) -> list[str]:
        self.oplog.misbehave()
        return sorted(self.existing)

    async def collection_names(self, database: str, most: int) -> tuple[list[str], bool]:
        self.oplog.misbehave()
        names = self.existing.get(database, [])
        return names[:most], len(names) > most

    async def check_source(self, watcher: Watcher) -> str:
        if self.refusal is not None:
            raise self.refusal
        source = self.source(watcher)
        try:
            await source.prepare(may_create=False)
            return await source.locate(Start("latest"))
        finally:
            await source.close()

    async def check_token(self, watcher: Watcher, token: str) -> None:
        return

    def source(self, watcher: Watcher) -> FakeSource:
        return FakeSource(self.oplog, self.batch, collection=watcher.source.collection)

    def rows(self, watcher: Watcher) -> FakeRows:
        return FakeRows(self.collections, watcher.source)

    def snapshots(self) -> FakeSnapshots:
        return FakeSnapshots(self.runs)

    def checkpoints(self, watcher: Watcher) -> FakeCheckpoints:
        checkpoints = FakeCheckpoints(self.place(watcher))
        checkpoints.undeletable = self.undeletable
        return checkpoints

    def place(self, watcher: Watcher) -> dict[str, Checkpoint]:
        """What holds the watcher's position."""
        kept = watcher.checkpoint
        return self.places.setdefault(f"checkpoints:{watcher.name}" if kept is None else kept.namespace, {})


class FakeNats:
    """An account with one stream per name."""

    def __init__(self, *streams: FakeStream) -> None:
        self.streams = {stream.name: stream for stream in streams}
        self.boxes: dict[str, FakeBox] = {}
        self.max_payload = 1024 * 1024
        self.refusal: Exception | None = None
        self.up = True

    async def ping(self) -> None:
        if not self.up:
            raise SinkUnavailable("connection refused")

    async def check_sink(self, watcher: Watcher) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def stream_names(self) -> tuple[list[str], bool]:
        return sorted(self.streams), False

    def sink(self, watcher: Watcher) -> FakeSink:
        stream = self.streams.setdefault(watcher.sink.stream, FakeStream(watcher.sink.stream, exists=False))
        return FakeSink(stream, watcher, self.max_payload)

    def letters(self, watcher: Watcher) -> FakeLetters:
        return FakeLetters(self.boxes.setdefault(watcher.sink.stream, FakeBox()), watcher)

    def reader(self, watcher: Watcher) -> FakeReader:
        stream = self.streams.setdefault(watcher.sink.stream, FakeStream(watcher.sink.stream, exists=False))
        return FakeReader(self, stream, watcher)
