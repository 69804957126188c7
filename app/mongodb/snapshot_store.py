"""The runs of snapshots: collection `snapshots` in the state database, one document of each watcher.

A run that begins with its watcher, or goes with it, is stored and removed by the registry (`watcher_store.py`).
Only who has read the last version may change a run: an instance that was frozen meanwhile is refused.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymongo.errors import DuplicateKeyError

from app.domain.errors import StateOutOfReach, StoreUnavailable
from app.domain.snapshot import Snapshot
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.one_answer import OneAnswer
from app.mongodb.snapshot_document import COLLECTION, as_document, changes, forgotten, restored
from app.mongodb.writes import to_its_end
from app.ports import Summary

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase


class MongoSnapshotStore:
    """`SnapshotStore`. Make it where the event loop runs."""

    def __init__(self, database: "AsyncIOMotorDatabase[Mapping[str, Any]]") -> None:
        self._database = database.name
        self._collection = database.get_collection(COLLECTION, **DURABLE)
        self._all = OneAnswer("snapshots", self._ask_all)

    async def all(self) -> Mapping[str, Summary]:
        return await self._all.ask()

    async def _ask_all(self) -> Mapping[str, Summary]:
        with self._guarded("reading the snapshots"):
            found = await self._collection.find({}, {"chunks": 0}).to_list(None)
        return {str(each["_id"]): Summary(restored(each), bool(each["open"])) for each in found}

    async def running(self) -> Mapping[str, str]:
        with self._guarded("looking which snapshots run"):
            found = await self._collection.find({"state": "running"}, {"run": 1}).to_list(None)
        return {str(each["_id"]): str(each["run"]) for each in found}

    async def read(self, watcher: str) -> Snapshot | None:
        with self._guarded("reading a snapshot"):
            document = await self._collection.find_one({"_id": watcher})
        return None if document is None else restored(document)

    @to_its_end
    async def put(self, snapshot: Snapshot, before: Snapshot | None) -> bool:
        document = as_document(snapshot)
        with self._guarded("storing a snapshot"):
            if before is None:
                try:
                    await self._collection.insert_one(document)
                except DuplicateKeyError:
                    return False
                return True
            there = {"_id": snapshot.watcher, "run": before.run, "version": before.version}
            return (await self._collection.replace_one(there, document)).matched_count == 1

    @to_its_end
    async def change(self, before: Snapshot, after: Snapshot) -> bool:
        changed = changes(before, after)
        if not changed:
            return True
        gone = dict.fromkeys(forgotten(before, after), 1)
        update: dict[str, Any] = {"$set": changed} | ({"$unset": gone} if gone else {})
        there = {"_id": before.watcher, "run": before.run, "version": before.version}
        with self._guarded("storing a snapshot"):
            return (await self._collection.update_one(there, update)).matched_count == 1

    @to_its_end
    async def delete(self, watcher: str) -> None:
        with self._guarded("deleting a snapshot"):
            await self._collection.delete_one({"_id": watcher})

    def _guarded(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return translated(
            doing, grant=f"readWrite on {self._database}", kind=StoreUnavailable, lacking=StateOutOfReach,
            seconds=SECONDS,
        )  # fmt: skip
