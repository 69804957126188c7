"""The runs of snapshots: collection `snapshots` in the state database, one document of each watcher.

A chunk's plan is a field of its own below `chunks`, so that planning one and forgetting another is one small update.
Only who has read the last version may change a run: an instance that was frozen meanwhile is refused.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from bson import Binary
from pymongo.errors import DuplicateKeyError

from app.domain.errors import StateOutOfReach, StoreUnavailable
from app.domain.snapshot import Chunk, Part, Snapshot
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.one_answer import OneAnswer
from app.mongodb.writes import to_its_end
from app.ports import Summary

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase

COLLECTION: Final = "snapshots"
_PLAIN: Final = tuple(
    field.name for field in fields(Snapshot) if field.name not in ("watcher", "chunks", "parts", "wanted")
)


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
        return {str(each["_id"]): Summary(_restored(each), bool(each["open"])) for each in found}

    async def read(self, watcher: str) -> Snapshot | None:
        with self._guarded("reading a snapshot"):
            document = await self._collection.find_one({"_id": watcher})
        return None if document is None else _restored(document)

    @to_its_end
    async def put(self, snapshot: Snapshot, before: Snapshot | None) -> bool:
        document = {"_id": snapshot.watcher, **_changed(None, snapshot)}
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
        changed = _changed(before, after)
        if not changed:
            return True
        gone = {f"chunks.{each.number}": 1 for each in before.chunks if each not in after.chunks}
        gone = {name: one for name, one in gone.items() if name not in changed}
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


def _changed(before: Snapshot | None, after: Snapshot) -> dict[str, Any]:
    """Return the fields that differ; of a new run all of them."""
    changed = {name: getattr(after, name) for name in (*_PLAIN, "open")}
    if before is not None:
        changed = {name: value for name, value in changed.items() if value != getattr(before, name)}
    if before is None or before.wanted != after.wanted:
        changed["wanted"] = list(after.wanted)
    if before is None or before.parts != after.parts:
        changed["parts"] = [[part.namespace, part.uuid, part.capped] for part in after.parts]
    if before is None:
        changed["chunks"] = {str(each.number): _chunk(each) for each in after.chunks}
    else:
        changed |= {f"chunks.{each.number}": _chunk(each) for each in after.chunks if each not in before.chunks}
    return changed


def _chunk(chunk: Chunk) -> dict[str, Any]:
    return {
        "mark": chunk.mark, "part": chunk.part, "after": chunk.after, "until": chunk.until, "since": chunk.since,
        "count": chunk.count, "cut": chunk.cut, "settled": chunk.settled,
        "keys": Binary(b"".join(chunk.keys)),
    }  # fmt: skip


def _restored(document: Mapping[str, Any]) -> Snapshot:
    plain: dict[str, Any] = {name: document.get(name) for name in _PLAIN}
    chunks = [
        Chunk(
            int(number), each["mark"], each["part"], _bytes(each["after"]), _bytes(each["until"]),
            _keys(bytes(each["keys"])), each["since"], each["count"], each["cut"], each["settled"],
        )
        for number, each in document.get("chunks", {}).items()
    ]  # fmt: skip
    snapshot = Snapshot(
        watcher=str(document["_id"]),
        wanted=tuple(document["wanted"]),
        parts=tuple(Part(*each) for each in document["parts"]),
        chunks=tuple(sorted(chunks, key=lambda chunk: chunk.number)),
        **plain,
    )
    return replace(snapshot, after=_bytes(snapshot.after))


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _keys(joined: bytes) -> tuple[bytes, ...]:
    """Take apart documents that follow one another: each begins with its length."""
    keys, at = [], 0
    while at < len(joined):
        end = at + int.from_bytes(joined[at : at + 4], "little")
        keys.append(joined[at:end])
        at = end
    return tuple(keys)
