"""The MongoDB deployment as a whole: what the rest of the service knows of MongoDB, and who gets which part of it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from app.domain.lag import Oplog
from app.domain.parts import Split
from app.domain.watcher import Watcher
from app.mongodb import names
from app.mongodb.answers import Answers
from app.mongodb.bulk_checkpoint_store import BulkCheckpointStore
from app.mongodb.change_source import BATCH_SIZE, MongoChangeSource
from app.mongodb.checkpoint_bulk import CheckpointBulk
from app.mongodb.checkpoint_store import MongoCheckpointStore
from app.mongodb.checks import WatcherChecks
from app.mongodb.connection import PATIENT, CommandListener, connect
from app.mongodb.entries_source import EntriesSource
from app.mongodb.feeds.hub import FeedHub
from app.mongodb.instance_store import MongoInstanceStore
from app.mongodb.pool import PoolWatch, asked_for
from app.mongodb.probe import DeploymentProbe
from app.mongodb.reach import Reach
from app.mongodb.row_source import MongoRowSource
from app.mongodb.seeking import seek_again
from app.mongodb.several_places import SeveralPlaces
from app.mongodb.snapshot_store import MongoSnapshotStore
from app.mongodb.watcher_store import MongoWatcherStore
from app.ports import ChangeSource, CheckpointStore, Observer, RowSource, SnapshotStore

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

    from app.mongodb.examiner import MongoExaminer


SWITCHED_OFF = "shared change streams are switched off (CHANGEWIRE_SHARED_STREAMS)"


class MongoDeployment:
    """`Mongo`: the deployment that the watchers of this process read, with the state kept in it.

    `batch_size` is the events of one read. Make it where the event loop runs. Raises Invalid for a URI that is not one.
    """

    def __init__(
        self,
        uri: str,
        *,
        state_database: str,
        observer: Observer | None = None,
        batch_size: int = BATCH_SIZE,
        split: Split | None = None,
        share: bool = True,
    ) -> None:
        """`split` takes a feed's batches apart faster than Python does. `share` says whether watchers may share."""
        self._uri = uri
        self._observer = observer
        self._state_database = state_database
        self._listeners = [] if observer is None else [CommandListener(observer)]
        self._batch_size = batch_size
        answers = Answers()
        self._client = connect(uri, [*self._listeners, answers])
        self._patient_client: AsyncIOMotorClient[Mapping[str, Any]] | None = None
        self._bulk = CheckpointBulk(self._client[state_database])
        self._snapshots = MongoSnapshotStore(self._client[state_database])
        self._probe = DeploymentProbe(self._client, answers)
        self.reach = Reach(
            self._client, self._patient, self._probe.oplog_first, state_database, pool_watch=PoolWatch(asked_for(uri))
        )
        """What the change streams of this deployment share."""
        self._checks = WatcherChecks(self.reach)
        self._feeds = FeedHub(self.reach, split, batch_size=batch_size) if share else None

    def _patient(self) -> "AsyncIOMotorClient[Mapping[str, Any]]":
        if self._patient_client is None:
            self._patient_client = connect(self._uri, self._listeners, PATIENT)
        return self._patient_client

    def close(self) -> None:
        """Close every connection; the sources and stores of this deployment are of no use afterwards."""
        self._client.close()
        if self._patient_client is not None:
            self._patient_client.close()

    def expect(self, watchers: Iterable[Watcher]) -> None:
        if self._feeds is not None:
            self._feeds.expect(watchers)

    def observe_streams(self) -> None:
        """Tell the observer which change streams are open; asked for by each scrape."""
        if self._observer is None:
            return
        shared = sum(self.reach.reading.values())
        members = {} if self._feeds is None else self._feeds.members()
        self._observer.change_streams(shared=shared, own=len(self.reach.reading) - shared, members=members)

    async def end_feeds(self) -> None:
        """End the change streams that watchers share, before `close`: their cursors end on the server too."""
        if self._feeds is not None:
            await self._feeds.close()

    def source(self, watcher: Watcher) -> ChangeSource:
        if watcher.entries:
            return EntriesSource(watcher, self.reach, batch_size=self._batch_size)
        if self._feeds is not None:
            return self._feeds.source(watcher)
        return MongoChangeSource(watcher, self.reach, batch_size=self._batch_size, why_own=SWITCHED_OFF)

    def checkpoints(self, watcher: Watcher) -> CheckpointStore:
        return SeveralPlaces(watcher, self._client, self._place_of) if watcher.entries else self._place_of(watcher)

    def _place_of(self, watcher: Watcher) -> CheckpointStore:
        place = watcher.checkpoint
        if place is None:
            return BulkCheckpointStore(self._bulk, watcher)
        return MongoCheckpointStore(
            self._client[place.database], place, namespace=watcher.source.namespace, registry=self._state_database
        )

    def rows(self, watcher: Watcher) -> RowSource:
        return MongoRowSource(watcher, self.reach)

    def snapshots(self) -> SnapshotStore:
        return self._snapshots

    def watchers(self) -> MongoWatcherStore:
        """The registry's store, `watchers` in the state database."""
        return MongoWatcherStore(self._client[self._state_database])

    def instances(self) -> MongoInstanceStore:
        """Which instances there are, and what each owns."""
        return MongoInstanceStore(self._client[self._state_database])

    def examiner(self) -> "MongoExaminer":
        """What `changewire doctor` asks."""
        from app.mongodb.examiner import MongoExaminer  # the service never does

        return MongoExaminer(self._client, self._probe)

    async def ping(self) -> int:
        for client in (self._client, self._patient_client):
            if client is not None:
                seek_again(client)
        return await self._probe.ping()

    async def read_oplog(self) -> Oplog | None:
        return await self._probe.read_oplog()

    async def database_names(self) -> list[str]:
        return await names.databases(self._client)

    async def collection_names(self, database: str, most: int) -> tuple[list[str], bool]:
        return await names.collections(self._client, database, most)

    async def check_source(self, watcher: Watcher) -> str:
        return await self._checks.check_source(watcher)

    async def check_token(self, watcher: Watcher, token: str) -> None:
        await self._checks.check_token(watcher, token)
