"""The registry of watchers, kept in MongoDB and shared by every instance on the same state database.

Three collections: `watchers`; `registry`, one document that counts the changes; `instances`, which are alive and how
far each has followed. A change is a transaction that first counts itself, so that changes come one after another and
each sees all before it. The store is followed in `control/reconciler.py`.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from app.domain.errors import Conflict, NotFound, StateOutOfReach, StoreUnavailable
from app.domain.watcher import StoredWatcher
from app.mongodb.codes import already_exists
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.owned import INSTANCE
from app.mongodb.watcher_document import as_stored, restored
from app.ports import ALIVE_SECONDS, Check

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClientSession, AsyncIOMotorCollection, AsyncIOMotorDatabase

    Collection = AsyncIOMotorCollection[Mapping[str, Any]]
    Counted = Callable[[AsyncIOMotorClientSession], Coroutine[Any, Any, None]]
    Body = Callable[[AsyncIOMotorClientSession, int], Awaitable[None]]

log = structlog.get_logger(__name__)

_COUNTER: Final = "revision"
_LARGE: Final = 16 * 1024
"""Characters of a pipeline whose parsing takes a noticeable time."""
_FORGOTTEN_SECONDS: Final = 3600
_IN_ORDER: Final = [("added", 1), ("_id", 1)]


class MongoWatcherStore:
    """`WatcherStore`: in `watchers` the `_id` is the watcher's name."""

    def __init__(self, database: "AsyncIOMotorDatabase[Mapping[str, Any]]") -> None:
        self._client = database.client
        self._watchers: Collection = database.get_collection("watchers", **DURABLE)
        self._registry: Collection = database.get_collection("registry", **DURABLE)
        self._instances: Collection = database.get_collection("instances", **DURABLE)
        self._ready = False
        self._unreadable: set[tuple[str, int | None]] = set()
        self._pipelines: dict[str, tuple[str, Any]] = {}
        """Each watcher's pipeline, as it is stored and as it was parsed: all are read again every few seconds."""
        self._changing = asyncio.Lock()
        """Transactions that meet are tried again; those of one process need not meet."""

    async def load(self) -> list[StoredWatcher]:
        with self._guarded("reading the watchers"):
            documents = await self._watchers.find(sort=_IN_ORDER).to_list(None)
        names = {document["_id"] for document in documents}
        self._pipelines = {name: each for name, each in self._pipelines.items() if name in names}
        return await self._readable(documents)

    async def get(self, name: str) -> StoredWatcher | None:
        with self._guarded("reading a watcher"):
            document = await self._watchers.find_one({"_id": name})
        return None if document is None else next(iter(await self._readable([document])), None)

    @property
    def unreadable(self) -> frozenset[str]:
        """The names of those that could not be restored so far."""
        return frozenset(name for name, _ in self._unreadable)

    async def revision(self) -> int:
        with self._guarded("reading the registry's revision"):
            counter = await self._registry.find_one({"_id": _COUNTER})
        return 0 if counter is None else int(counter["value"])

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            await self._checked(session, check)
            try:
                document = as_stored(stored) | {"revision": revision, "added": revision}
                await self._watchers.insert_one(document, session=session)
            except DuplicateKeyError as error:
                raise Conflict(f"there is a watcher {stored.name} already") from error

        document = as_stored(stored) | dict.fromkeys(("revision", "added"), await self._change(body))
        return restored(document, stored.watcher.source.pipeline)

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            await self._checked(session, check)
            there = await self._watchers.find_one({"_id": stored.name}, {"revision": 1}, session=session)
            if there is None:
                raise NotFound(f"there is no watcher {stored.name}")
            _expect(there, expected_revision)
            document = as_stored(stored) | {"revision": revision}
            await self._watchers.replace_one({"_id": stored.name}, document, session=session)

        document = as_stored(stored) | {"revision": await self._change(body)}
        return restored(document, stored.watcher.source.pipeline)

    async def began(self, name: str, revision: int) -> None:
        with self._guarded("storing a watcher"):
            took_back = {"$set": {"newStart": False, "begin": None}}
            await self._watchers.update_one({"_id": name, "revision": revision}, took_back)

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        async def body(session: "AsyncIOMotorClientSession", _revision: int) -> None:
            there = await self._watchers.find_one_and_delete({"_id": name}, {"revision": 1}, session=session)
            if there is None:
                raise NotFound(f"there is no watcher {name}")
            if expected_revision is not None:
                _expect(there, expected_revision)

        return await self._change(body)

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        documents = [as_stored(one) | {"revision": one.revision, "added": one.added} for one in lost]
        counted = max([applied, *(one.revision for one in lost)])  # a change may be stored and not yet followed

        async def body(session: "AsyncIOMotorClientSession", revision: int) -> None:
            if revision > applied + 1 or await self._watchers.find_one({}, {"_id": 1}, session=session) is not None:
                raise Conflict("the watchers are there")
            await self._watchers.insert_many(documents, session=session)
            at_least = {"$max": {"value": counted + 1}}
            await self._registry.update_one({"_id": _COUNTER}, at_least, session=session)

        self._ready = False  # the counter may be gone as well
        try:
            await self._change(body)
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
        others = {
            "_id": {"$ne": instance},
            "applied": {"$lt": revision},
            "$expr": {"$not": [_seen_before(ALIVE_SECONDS)]},
        }
        with self._guarded("looking for other instances"):
            return int(await self._instances.count_documents(others))

    async def _change(self, body: "Body") -> int:
        """Make a change in its turn, with everything in it or nothing, and return its revision."""
        revision = 0

        async def counted(session: "AsyncIOMotorClientSession") -> None:
            nonlocal revision
            counter = await self._registry.find_one_and_update(
                {"_id": _COUNTER}, {"$inc": {"value": 1}}, return_document=ReturnDocument.AFTER, session=session
            )
            if counter is None:
                raise StoreUnavailable(f"the counter in {self._registry.full_name} is gone; try again")
            revision = int(counter["value"])
            await body(session, revision)

        async with self._changing:
            await self._transact(counted)
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
            await self._registry.update_one({"_id": _COUNTER}, {"$setOnInsert": first}, upsert=True)
        if highest is None:
            try:
                await self._watchers.database.create_collection("watchers", check_exists=False)
            except OperationFailure as error:
                if not already_exists(error):
                    raise
        self._ready = True

    async def _checked(self, session: "AsyncIOMotorClientSession", check: Check | None) -> None:
        if check is not None:
            documents = await self._watchers.find(sort=_IN_ORDER, session=session).to_list(None)
            check(await self._readable(documents))

    async def _readable(self, documents: Iterable[Mapping[str, Any]]) -> list[StoredWatcher]:
        """Restore what can be. What a later version or a person has written may not be readable: that is logged, and
        the others run all the same."""
        found = []
        for document in documents:
            try:
                text = document["watcher"]["source"]["pipeline"]
                found.append(restored(document, self._parsed(document["_id"], text)))
                if len(text) > _LARGE:
                    await asyncio.sleep(0)  # hundreds of these must not block the event loop
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                unreadable = (document["_id"], document.get("revision"))
                if unreadable not in self._unreadable:
                    self._unreadable.add(unreadable)
                    log.error(
                        "watcher_unreadable", watcher=document["_id"], collection=self._watchers.full_name,
                        error=repr(error), hint="a later version of Changewire may have written it",
                    )  # fmt: skip
        return found

    def _parsed(self, name: str, text: str) -> Any:
        known = self._pipelines.get(name)
        if known is None or known[0] != text:
            known = self._pipelines[name] = text, json.loads(text)
        return known[1]

    def _guarded(self, doing: str) -> contextlib.AbstractContextManager[None]:
        grant = f"readWrite on {self._watchers.database.name}"
        return translated(doing, grant=grant, kind=StoreUnavailable, lacking=StateOutOfReach, seconds=SECONDS)


def _expect(there: Mapping[str, Any], revision: int) -> None:
    """Raise Conflict, which takes the whole transaction back, where a watcher has another revision."""
    if there["revision"] != revision:
        raise Conflict(f"watcher {there['_id']} was changed meanwhile (revision {there['revision']}); look again")


def _seen_before(seconds: float) -> dict[str, Any]:
    """An expression: the document was last seen longer ago than that, by the server's clock."""
    return {"$lt": ["$seen", {"$subtract": ["$$NOW", int(seconds * 1000)]}]}
