"""Each watcher's position, kept in MongoDB.

Writes are acknowledged by a majority, conditional where two instances may meet, and bounded in time. Each is one
command, so it costs one thread switch, except in a capped collection. A write that has begun is completed before its
caller continues, even where that is cancelled (`writes.py`). Every command that may change a document has a filter that
only positions match (`owned.py`). How a position is written down: `checkpoint_document.py`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bson import ObjectId
from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import Conflict, Invalid, ScopeMismatch, StoreUnavailable
from app.domain.position import Checkpoint, OwnMessage
from app.mongodb.checkpoint_document import (
    as_checkpoint,
    as_fields,
    is_of_earlier_epoch,
    may_follow,
    newest_of,
    set_where_epoch_is_earlier,
    set_where_it_may_follow,
)
from app.mongodb.checkpoint_place import LEAST_BYTES, is_shared, problem_of
from app.mongodb.codes import ILLEGAL_OPERATION, already_exists
from app.mongodb.described import described_by, description, uuid_in
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.owned import POSITION, position_of
from app.mongodb.writes import to_its_end

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

FIRST_ID: Final = ObjectId("0" * 24)
"""The `_id` of a checkpoint that finds none. Two writers cannot both insert it, and what mongodb-nats-connector inserts
afterwards is newer by `_id`, as it should be."""
COPIED: Final = "copied"
"""A `home` that no collection has."""
_CAPPED_LOOK_BACK: Final = 16


class MongoCheckpointStore:
    """`CheckpointStore` in one collection: the newest document by `_id`, updated in place.

    In a capped collection, where a document may not grow, the newest by `$natural`, inserted.
    """

    def __init__(
        self,
        database: "AsyncIOMotorDatabase[Mapping[str, Any]]",
        place: CheckpointPlace,
        *,
        namespace: str,
        registry: str,
    ) -> None:
        """`namespace` is the collection the watcher reads, `registry` the state database that the watcher is kept in:
        by them its positions are told from another watcher's."""
        self._database = database
        self._place = place
        self._registry = registry
        self._of_the_watcher = position_of(namespace, registry)
        self._collection: AsyncIOMotorCollection[Mapping[str, Any]] = database.get_collection(
            place.collection, **DURABLE
        )
        self._capped: bool | None = None
        self._home: str | None = None
        """The collection's UUID, once the collection exists: in each document it tells an original from a copy."""
        self._looked = False

    async def check(self) -> None:
        with self._guarded("looking at the checkpoint's collection"):
            found = await problem_of(self._database, self._collection, self._place)
        if found is not None:
            raise Invalid(problems=(found,))

    async def read(self) -> Checkpoint | None:
        with self._guarded("reading the checkpoint"):
            newest = await self._read()
        return None if newest is None else as_checkpoint(newest, self._home)

    @to_its_end
    async def create(self, checkpoint: Checkpoint) -> bool:
        with self._guarded("storing the first checkpoint"):
            if await self._read() is not None:
                return False
            if await self._is_capped():
                await self._refuse_shared()
            try:
                await self._insert_first(checkpoint)
            except DuplicateKeyError:
                if await self._read() is None:
                    raise self._taken() from None
                return False
        return True

    @to_its_end
    async def advance(self, checkpoint: Checkpoint) -> bool:
        with self._guarded("storing the checkpoint"):
            capped, fields = await self._is_capped(), self._fields(checkpoint)
            if capped:
                newest = await self._read()
                if newest is not None and not may_follow(checkpoint, newest):
                    return False
                unsettled = newest.get("doubt", []) if newest is not None else []
                await self._insert({**fields, "doubt": unsettled})
                return True
            # One atomic command: which document is the newest, whether this may follow it, and the change.
            before = await self._change_newest(set_where_it_may_follow(fields), checkpoint)
        return before is None or may_follow(checkpoint, before)

    @to_its_end
    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        kept = [{"sequence": one.sequence, "id": str(one.id)} for one in unsettled]
        with self._guarded("storing places that are not settled"):
            await self._note("doubt", kept, epoch)

    @to_its_end
    async def uncount(self, epoch: int) -> None:
        with self._guarded("storing what comes after the checkpoint"):
            await self._note("counted", False, epoch)

    async def _note(self, field: str, value: Any, epoch: int) -> None:
        """Set one field beside the stored position, unless that is of a later epoch."""
        if await self._is_capped():
            await self._refuse_shared()
            newest = await self._read()
            if newest is not None and newest.get("epoch", 0) <= epoch:
                same = {name: value for name, value in newest.items() if name != "_id"}
                await self._insert({**same, field: value})
            return
        ours = {"$lte": [{"$ifNull": ["$epoch", 0]}, epoch]}
        await self._collection.find_one_and_update(
            POSITION,
            [{"$set": {field: {"$cond": [ours, {"$literal": value}, f"${field}"]}}}],
            sort=[("_id", DESCENDING)],
        )

    @to_its_end
    async def begin(self, checkpoint: Checkpoint) -> bool:
        with self._guarded("storing the checkpoint"):
            capped, fields = await self._is_capped(), self._fields(checkpoint)
            if capped:
                newest = await self._read()
                if newest is None or is_of_earlier_epoch(checkpoint, newest):
                    await self._insert(dict(fields))
                    return True
                return False
            before = await self._change_newest(set_where_epoch_is_earlier(fields), checkpoint)
        return before is None or is_of_earlier_epoch(checkpoint, before)

    @to_its_end
    async def delete(self) -> None:
        with self._guarded("deleting the checkpoint"):
            try:
                # All of them, since older ones of mongodb-nats-connector's would be the newest then; nothing else.
                await self._collection.delete_many(self._of_the_watcher)
            except OperationFailure as error:
                # Before 5.0 nothing is deleted from a capped collection.
                if error.code != ILLEGAL_OPERATION or not await self._is_capped():
                    raise
                if await self._collection.find_one({"$nor": [self._of_the_watcher]}, {"_id": 1}) is not None:
                    raise Conflict(
                        f"{self._collection.full_name} is capped, so that this version of MongoDB deletes nothing in "
                        "it, and it holds other documents than this watcher's position: keep the position, or drop "
                        "the collection yourself"
                    ) from error
                await self._collection.drop()
                self._capped = None

    async def _change_newest(
        self, update: Sequence[Mapping[str, Any]], checkpoint: Checkpoint
    ) -> Mapping[str, Any] | None:
        """Update the newest position and return it as it was, or insert the first one and return None."""
        for _ in range(3):
            before = await self._collection.find_one_and_update(
                POSITION, update, sort=[("_id", DESCENDING)], return_document=ReturnDocument.BEFORE
            )
            if before is not None:
                return before
            with contextlib.suppress(DuplicateKeyError):  # another instance was first: its document is updated now
                await self._insert_first(checkpoint)
                return None
        if await self._read() is None:
            raise self._taken()
        raise StoreUnavailable(
            f"the checkpoint in {self._collection.full_name} comes and goes: something else deletes it"
        )

    async def _insert_first(self, checkpoint: Checkpoint) -> None:
        """Insert the first document; a collection that is created by that has a UUID only then.

        Raises DuplicateKeyError where another one was inserted meanwhile."""
        self._capped = None  # it may have been dropped since the last look
        await self._is_capped()
        await self._collection.insert_one({"_id": FIRST_ID, **self._fields(checkpoint)})
        if checkpoint.native and self._home is None:
            self._capped = None
            await self._is_capped()
            await self._collection.update_one({"_id": FIRST_ID, "home": None}, {"$set": {"home": self._home}})

    async def _insert(self, document: dict[str, Any]) -> None:
        """Insert into a capped collection, where each document may push an older one out."""
        await self._refuse_shared()
        await self._collection.insert_one(document)

    async def _refuse_shared(self) -> None:
        if not self._looked and await is_shared(self._collection):
            raise self._taken()
        self._looked = True

    def _taken(self) -> ScopeMismatch:
        return ScopeMismatch(
            f"{self._place.namespace} holds documents that are no positions, and no position can be stored among them; "
            "name another checkpoint.collection"
        )

    async def _read(self) -> Mapping[str, Any] | None:
        if not await self._is_capped():
            return await self._collection.find_one(POSITION, sort=[("_id", DESCENDING)])
        last = self._collection.find(POSITION, sort=[("$natural", DESCENDING)], limit=_CAPPED_LOOK_BACK)
        return newest_of(await last.to_list(_CAPPED_LOOK_BACK))

    async def _is_capped(self) -> bool:
        """Look once what the collection is, and create it where it is missing: capped if the watcher asks for that."""
        if self._capped is None:
            if self._place.capped:
                options: dict[str, Any] = {"capped": True, "size": max(self._place.size_in_bytes, LEAST_BYTES)}
                try:
                    await self._database.create_collection(self._place.collection, check_exists=False, **options)
                except OperationFailure as error:
                    if not already_exists(error):
                        raise
            described = description(await self._database.command(described_by(self._place.collection)))
            self._capped = bool((described or {}).get("options", {}).get("capped"))
            self._home = uuid_in(described)
        return self._capped

    def _fields(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {**as_fields(checkpoint), "home": self._home_of(checkpoint), "registry": self._registry}

    def _home_of(self, checkpoint: Checkpoint) -> str | None:
        """A position that was copied to where it was read from stays a copy until it is proved."""
        return self._home if checkpoint.native else None if checkpoint.native is None else COPIED

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            grant = f"readWrite on {self._database.name}"
            with translated(doing, grant=grant, kind=StoreUnavailable, seconds=SECONDS):
                yield
        except StoreUnavailable:
            self._capped, self._looked = None, False  # it may have been recreated
            raise
