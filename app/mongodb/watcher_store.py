"""The registry of watchers, kept in MongoDB and shared by every instance on the same state database.

Three collections: `watchers`; `registry`, one document that counts the changes; `instances`, which are alive and how
far each has followed. The run of a watcher's snapshot, in `snapshots`, comes and goes with the watcher. A change is a
transaction that first counts itself, so that changes come one after another and each sees all before it. The store is
followed in `control/reconciler.py`.

Nothing here may cost more with each watcher that is stored already. A change is checked against all of them without
reading them again, where the count says that nobody else has changed anything since; a round that reads all decodes
only the documents that it has not seen before (decision 0034).
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import bson
import structlog
from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from app.domain.errors import Conflict, NotFound, StateOutOfReach, StoreUnavailable
from app.domain.overlap_index import OverlapIndex
from app.domain.snapshot import Snapshot
from app.domain.watcher import StoredWatcher
from app.mongodb.codes import DUPLICATE_KEY, already_exists
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.one_answer import OneAnswer
from app.mongodb.owned import INSTANCE
from app.mongodb.snapshot_document import COLLECTION as SNAPSHOTS
from app.mongodb.snapshot_document import as_document
from app.mongodb.watcher_document import as_stored, restored
from app.ports import ALIVE_SECONDS, Check

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClientSession, AsyncIOMotorCollection, AsyncIOMotorDatabase

    Collection = AsyncIOMotorCollection[Mapping[str, Any]]
    Counted = Callable[[AsyncIOMotorClientSession], Coroutine[Any, Any, None]]
    Body = Callable[[AsyncIOMotorClientSession, int], Awaitable[None]]
    Told = Callable[[OverlapIndex, int], None]

log = structlog.get_logger(__name__)

REVISION: Final = "revision"
_LARGE: Final = 16 * 1024
"""Characters of a pipeline whose parsing takes a noticeable time."""
_AT_ONCE: Final = 100
"""Documents that are restored before others have their turn."""
_FORGOTTEN_SECONDS: Final = 3600
_IN_ORDER: Final = [("added", 1), ("_id", 1)]


class MongoWatcherStore:
    """`WatcherStore`: in `watchers` the `_id` is the watcher's name."""

    def __init__(self, database: "AsyncIOMotorDatabase[Mapping[str, Any]]") -> None:
        self._client = database.client
        self._watchers: Collection = database.get_collection("watchers", **DURABLE)
        self._registry: Collection = database.get_collection("registry", **DURABLE)
        self._instances: Collection = database.get_collection("instances", **DURABLE)
        self._snapshots: Collection = database.get_collection(SNAPSHOTS, **DURABLE)
        raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
        self._raw: AsyncIOMotorCollection[Any] = self._watchers.with_options(codec_options=raw)
        self._ready = False
        self._unreadable: set[tuple[str, int | None]] = set()
        self._restored: dict[bytes, StoredWatcher] = {}
        """What each document was restored to: all are read again every few seconds."""
        self._changing = asyncio.Lock()
        """Transactions that meet are tried again; those of one process need not meet."""
        self._all: OverlapIndex | None = None
        """All watchers as the last change of this process, `_counted`, left them; None where that is not known."""
        self._counted = 0
        self._revision = OneAnswer("registry_revision", self._read_revision)
        self._others = OneAnswer("other_instances", self._read_instances)
        self._began: list[tuple[str, int]] = []
        self._take_back = OneAnswer("take_back_starts", self._take_starts_back)

    async def load(self) -> list[StoredWatcher]:
        counted = self._counted
        with self._guarded("reading the watchers"):
            documents = await self._raw.find(sort=_IN_ORDER).to_list(None)
        found = await self._readable(documents)
        raw = {bytes(document.raw) for document in documents}
        self._restored = {each: stored for each, stored in self._restored.items() if each in raw}
        if counted == self._counted and self._all is not None and not _same(self._all, found):
            self._all = None  # somebody has changed documents by hand, or another instance has changed some
        return found

    async def get(self, name: str) -> StoredWatcher | None:
        with self._guarded("reading a watcher"):
            document = await self._raw.find_one({"_id": name})
        return None if document is None else next(iter(await self._readable([document])), None)

    @property
    def unreadable(self) -> frozenset[str]:
        """The names of those that could not be restored so far."""
        return frozenset(name for name, _ in self._unreadable)

    async def revision(self) -> int:
        return await self._revision.ask()

    async def _read_revision(self) -> int:
        with self._guarded("reading the registry's revision"):
            counter = await self._registry.find_one({"_id": REVISION})
        return 0 if counter is None else int(counter["value"])

    async def check(self, check: Check) -> None:
        if self._all is None or self._counted != await self.revision():
            check(OverlapIndex(await self.load()))
        else:
            check(self._all)

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        return (await self.insert_all([stored], check))[0]

    async def insert_all(
        self, wanted: Sequence[StoredWatcher], check: Check | None = None, runs: Sequence[Snapshot] = ()
    ) -> list[StoredWatcher]:
        added: list[StoredWatcher] = []

        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            await self._checked(session, revision, check)
            numbered = [replace(one, revision=revision, added=revision) for one in wanted]
            try:
                await self._watchers.insert_many([as_stored(one) for one in numbered], session=session)
            except BulkWriteError as error:
                first = (error.details or {}).get("writeErrors", [{}])[0]
                if first.get("code") != DUPLICATE_KEY:
                    raise
                raise Conflict(f"there is a watcher {first['op']['_id']} already") from error
            await self._snapshots.delete_many({"_id": {"$in": [one.name for one in wanted]}}, session=session)
            if runs:
                await self._snapshots.insert_many(list(map(as_document, runs)), session=session)
            added[:] = numbered

        def told(everybody: OverlapIndex, _revision: int) -> None:
            for one in added:
                everybody.put(one)

        await self._change(body, told)
        return [_as_it_is_read(one) for one in added]

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            await self._checked(session, revision, check)
            there = await self._watchers.find_one({"_id": stored.name}, {"revision": 1}, session=session)
            if there is None:
                raise NotFound(f"there is no watcher {stored.name}")
            _expect(there, expected_revision)
            document = as_stored(stored) | {"revision": revision}
            await self._watchers.replace_one({"_id": stored.name}, document, session=session)

        def told(everybody: OverlapIndex, revision: int) -> None:
            everybody.put(replace(stored, revision=revision))

        return _as_it_is_read(replace(stored, revision=await self._change(body, told)))

    async def began(self, name: str, revision: int) -> None:
        self._began.append((name, revision))
        await self._take_back.ask()

    async def _take_starts_back(self) -> None:
        """Take back the starts of all that have begun since the last time, in one command."""
        began, self._began = self._began, []
        took_back = {"$set": {"newStart": False, "begin": None}}
        updates = [UpdateOne({"_id": name, "revision": revision}, took_back) for name, revision in began]
        if updates:
            with self._guarded("storing watchers"):
                await self._watchers.bulk_write(updates, ordered=False)

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        async def body(session: "AsyncIOMotorClientSession", _revision: int) -> None:
            there = await self._watchers.find_one_and_delete({"_id": name}, {"revision": 1}, session=session)
            if there is None:
                raise NotFound(f"there is no watcher {name}")
            if expected_revision is not None:
                _expect(there, expected_revision)
            await self._snapshots.delete_one({"_id": name}, session=session)

        return await self._change(body, lambda everybody, _: everybody.drop(name))

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        documents = [as_stored(one) | {"revision": one.revision, "added": one.added} for one in lost]
        counted = max([applied, *(one.revision for one in lost)])  # a change may be stored and not yet followed

        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            if revision > applied + 1 or await self._watchers.find_one({}, {"_id": 1}, session=session) is not None:
                raise Conflict("the watchers are there")
            await self._watchers.insert_many(documents, session=session)
            at_least = {"$max": {"value": counted + 1}}
            await self._registry.update_one({"_id": REVISION}, at_least, session=session)

        self._ready = False  # the counter may be gone as well
        try:
            await self._change(body, None)
        except Conflict:
            return False
        return True

    async def attend(self, instance: str, applied: int) -> None:
        seen = [{"$set": {"applied": applied, "seen": "$$NOW"}}]
        with self._guarded("saying that this instance is alive"):
            result = await self._instances.update_one({"_id": instance}, seen, upsert=True)
            if result.upserted_id is not None:
                await self._instances.delete_many({"$and": [INSTANCE, {"$expr": _seen_before(_FORGOTTEN_SECONDS)}]})

    async def leave(self, instance: str) -> None:
        with self._guarded("saying that this instance ends"):
            await self._instances.delete_one({"_id": instance})

    async def behind(self, instance: str, revision: int) -> int:
        return sum(name != instance and applied < revision for name, applied in await self._others.ask())

    async def _read_instances(self) -> list[tuple[str, int]]:
        """Return which instances live, and how far each has followed."""
        alive = {"applied": {"$type": ["int", "long"]}, "$expr": {"$not": [_seen_before(ALIVE_SECONDS)]}}
        with self._guarded("looking for other instances"):
            found = await self._instances.find(alive, {"applied": 1}).to_list(None)
        return [(each["_id"], each["applied"]) for each in found]

    async def _change(self, body: "Body", told: "Told | None") -> int:
        """Make a change in its turn, with everything in it or nothing, and return its revision.

        `told` makes the same change to what is known of all watchers; None where that is another store now."""
        revision = 0

        async def counted(session: "AsyncIOMotorClientSession") -> None:
            nonlocal revision
            counter = await self._registry.find_one_and_update(
                {"_id": REVISION}, {"$inc": {"value": 1}}, return_document=ReturnDocument.AFTER, session=session
            )
            if counter is None:
                raise StoreUnavailable(f"the counter in {self._registry.full_name} is gone; try again")
            revision = int(counter["value"])
            await body(session, revision)

        async with self._changing:
            try:
                await self._transact(counted)
            except BaseException:
                self._all = None  # whether it was made is not known
                raise
            if told is None or self._counted != revision - 1:
                self._all = None
            elif self._all is not None:
                told(self._all, revision)
            self._counted = revision
        return revision

    async def _transact(self, counted: "Counted") -> None:
        with self._guarded("changing the registry"):
            await self._make_ready()
            try:
                async with await self._client.start_session() as session:
                    await session.with_transaction(
                        counted,
                        read_concern=DURABLE["read_concern"],
                        write_concern=DURABLE["write_concern"],
                        read_preference=DURABLE["read_preference"],
                    )
            except StoreUnavailable:
                self._ready = False
                raise

    async def _make_ready(self) -> None:
        """Create what a transaction cannot create on every server, once: the collections and the counter."""
        if self._ready:
            return
        highest = await self._watchers.find_one({}, {"revision": 1}, sort=[("revision", -1)])
        first = {"value": highest["revision"] if highest is not None else 0}
        with contextlib.suppress(DuplicateKeyError):
            await self._registry.update_one({"_id": REVISION}, {"$setOnInsert": first}, upsert=True)
        for missing in ("watchers", SNAPSHOTS) if highest is None else (SNAPSHOTS,):
            try:
                await self._watchers.database.create_collection(missing, check_exists=False)
            except OperationFailure as error:
                if not already_exists(error):
                    raise
        self._ready = True

    async def _checked(self, session: "AsyncIOMotorClientSession", revision: int, check: Check | None) -> None:
        """Check a change, whose revision this is, against all watchers.

        The transaction has just counted it, so nobody changes anything until it has ended: where the count is one more
        than that of this process's last change, all is as that left it."""
        if check is None:
            return
        if self._all is None or self._counted != revision - 1:
            documents = await self._raw.find(session=session).to_list(None)
            self._all, self._counted = OverlapIndex(await self._readable(documents)), revision - 1
        check(self._all)

    async def _readable(self, documents: Iterable[RawBSONDocument]) -> list[StoredWatcher]:
        """Restore what can be. What a later version or a person has written may not be readable: that is logged, and
        the others run all the same."""
        found = []
        for raw in (bytes(document.raw) for document in documents):
            if (known := self._restored.get(raw)) is not None:
                found.append(known)
                continue
            document = bson.decode(raw)
            try:
                text = document["watcher"]["source"]["pipeline"]
                stored = restored(document, json.loads(text))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                self._note_unreadable(document, error)
                continue
            found.append(stored)
            self._restored[raw] = stored
            if len(text) > _LARGE or len(found) % _AT_ONCE == 0:
                await asyncio.sleep(0)  # hundreds of these must not block the event loop
        return found

    def _note_unreadable(self, document: Mapping[str, Any], error: Exception) -> None:
        unreadable = (document["_id"], document.get("revision"))
        if unreadable not in self._unreadable:
            self._unreadable.add(unreadable)
            name, collection = document["_id"], self._watchers.full_name
            log.error("watcher_unreadable", watcher=name, collection=collection, reason=repr(error))

    def _guarded(self, doing: str) -> contextlib.AbstractContextManager[None]:
        grant = f"readWrite on {self._watchers.database.name}"
        return translated(doing, grant=grant, kind=StoreUnavailable, lacking=StateOutOfReach, seconds=SECONDS)


def _same(known: OverlapIndex, found: Sequence[StoredWatcher]) -> bool:
    """Whether all watchers are known in the revisions in which they were found."""
    return {one.name: one.revision for one in known} == {one.name: one.revision for one in found}


def _as_it_is_read(stored: StoredWatcher) -> StoredWatcher:
    """Return what `load` would: some of the values that a caller may give have another type when they are read."""
    return restored(as_stored(stored), stored.watcher.source.pipeline)


def _expect(there: Mapping[str, Any], revision: int) -> None:
    """Raise Conflict, which takes the whole transaction back, where a watcher has another revision."""
    if there["revision"] != revision:
        raise Conflict(f"watcher {there['_id']} was changed meanwhile (revision {there['revision']}); look again")


def _seen_before(seconds: float) -> dict[str, Any]:
    """An expression: the document was last seen longer ago than that, by the server's clock."""
    return {"$lt": ["$seen", {"$subtract": ["$$NOW", int(seconds * 1000)]}]}
