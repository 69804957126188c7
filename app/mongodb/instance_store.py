"""Members and owners in the state database.

`members`: one document for each instance, its `_id` the instance's name. `registry`: one document, `owners`, with the
owners of all watchers, which is changed by comparing and setting its revision; one, `peers`, with the key that
instances sign their messages with; and one, `format`, which tells a later version's registry. Times are the server's.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from bson import Binary
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from app.domain.errors import StateOutOfReach, StoreUnavailable
from app.domain.instances import Member, Owner, Owners
from app.domain.measured import FLOOR
from app.mongodb.durable import DURABLE, SECONDS
from app.mongodb.errors import translated
from app.mongodb.watcher_store import REVISION

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase

log = structlog.get_logger(__name__)

T = TypeVar("T")

_OWNERS: Final = "owners"
_PEERS: Final = "peers"
_FORMAT: Final = "format"
_FORGOTTEN_SECONDS: Final = 3600
_KEY_BYTES: Final = 32
_AGE: Final = {
    "$cond": [{"$eq": [{"$type": "$seen"}, "date"]}, {"$divide": [{"$subtract": ["$$NOW", "$seen"]}, 1000]}, None]
}
"""Seconds; null for a document that is no report. A subtraction would fail there, for all members together."""


class MongoInstanceStore:
    """`InstanceStore`."""

    def __init__(self, database: "AsyncIOMotorDatabase[Mapping[str, Any]]") -> None:
        self._members: AsyncIOMotorCollection[Mapping[str, Any]] = database.get_collection("members", **DURABLE)
        self._unreadable: set[str] = set()
        self._registry: AsyncIOMotorCollection[Mapping[str, Any]] = database.get_collection("registry", **DURABLE)

    async def members(self) -> list[Member]:
        with self._guarded("reading the instances"):
            recent = {"$match": {"$expr": {"$lt": [_AGE, _FORGOTTEN_SECONDS]}}}
            found = await self._members.aggregate([recent, {"$set": {"age": _AGE}}, {"$sort": {"_id": 1}}]).to_list(
                None
            )
        return [member for each in found if (member := self._readable(each["_id"], _member, each)) is not None]

    async def join(self, member: Member, over: str | None) -> bool:
        with self._guarded("reporting this instance"):
            # An upsert: where another session has the name, the insert meets its document.
            mine = {"_id": member.name, "session": {"$in": [member.session, *([] if over is None else [over])]}}
            report = [{"$replaceWith": {"_id": member.name, **_report(member), "since": "$$NOW", "seen": "$$NOW"}}]
            try:
                await self._members.update_one(mine, report, upsert=True)
            except DuplicateKeyError:
                return False
            stale = {"$expr": {"$gte": [_AGE, _FORGOTTEN_SECONDS]}, "session": {"$type": "string"}}
            await self._members.delete_many(stale)
        return True

    async def beat(self, member: Member) -> bool:
        with self._guarded("reporting this instance"):
            # Not `drained`, which others set: see `drain`.
            report = {name: value for name, value in _report(member).items() if name != "drained"}
            result = await self._members.update_one(
                {"_id": member.name, "session": member.session}, [{"$set": {**report, "seen": "$$NOW"}}]
            )
        return bool(result.matched_count)

    async def leave(self, name: str, session: str) -> None:
        with self._guarded("taking back an instance's report"):
            await self._members.delete_one({"_id": name, "session": session})

    async def drain(self, name: str, *, on: bool) -> bool:
        with self._guarded("asking an instance to give up its watchers"):
            result = await self._members.update_one({"_id": name}, {"$set": {"drained": on}})
        return bool(result.matched_count)

    async def owners(self, known: int) -> tuple[int, Owners | None]:
        with self._guarded("reading who owns which watcher"):
            both = self._registry.find({"_id": {"$in": [_OWNERS, REVISION]}}, {"revision": 1, "value": 1})
            there = {each["_id"]: each for each in await both.to_list(None)}
            registry = int(there.get(REVISION, {}).get("value", 0))
            if int(there.get(_OWNERS, {}).get("revision", 0)) == known:
                return registry, None
            found = await self._registry.find_one({"_id": _OWNERS}) if _OWNERS in there else None
        if found is None:
            return registry, Owners()
        owners = {_name(key): self._readable(f"owners of {_name(key)}", _owner, each) for key, each in _owned(found)}
        return registry, Owners(int(found["revision"]), {name: one for name, one in owners.items() if one is not None})

    async def change_owners(self, revision: int, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        change: dict[str, Any] = {"$inc": {"revision": 1}}
        if put:
            change["$set"] = {f"owners.{_key(name)}": _as_stored(owner) for name, owner in put.items()}
        if gone := [name for name in drop if name not in put]:
            change["$unset"] = {f"owners.{_key(name)}": "" for name in gone}
        with self._guarded("storing who owns which watcher"):
            if revision == 0:
                first = {"_id": _OWNERS, "revision": 1, "owners": {_key(name): _as_stored(put[name]) for name in put}}
                try:
                    await self._registry.insert_one(first)
                except DuplicateKeyError:
                    return False
                return True
            result = await self._registry.update_one({"_id": _OWNERS, "revision": revision}, change)
        return bool(result.matched_count)

    async def format(self, known: int) -> int:
        with self._guarded("reading the registry's format"):
            found = await self._registry.find_one({"_id": _FORMAT})
            if found is None:
                found = await self._made_once(_FORMAT, {"value": known})
        return int(found["value"])

    async def secret(self) -> tuple[str, bytes]:
        made = {"group": secrets.token_hex(6), "key": Binary(secrets.token_bytes(_KEY_BYTES))}
        with self._guarded("reading what the instances share"):
            found = await self._made_once(_PEERS, made)
        return str(found["group"]), bytes(found["key"])

    async def _made_once(self, name: str, made: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a document of the registry, which is made by the first instance that asks for it."""
        while True:
            try:
                found = await self._registry.find_one_and_update(
                    {"_id": name}, {"$setOnInsert": made}, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # another instance was faster
                continue
            assert found is not None, "it is there by now"
            return found

    def _readable(self, what: str, read: Callable[[Mapping[str, Any]], T], found: Mapping[str, Any]) -> T | None:
        """Return what a document says; None where a person or a later version has written something else, which must
        not keep the others from being read. That is logged once."""
        try:
            return read(found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if what not in self._unreadable:
                self._unreadable.add(what)
                database = self._members.database.name
                log.error("instance_unreadable", what=str(what), database=database, reason=repr(error))
            return None

    def _guarded(self, doing: str) -> AbstractContextManager[None]:
        grant = f"readWrite on {self._members.database.name}"
        return translated(doing, grant=grant, kind=StoreUnavailable, lacking=StateOutOfReach, seconds=SECONDS)


def _report(member: Member) -> dict[str, Any]:
    """Return a member as it is stored, without its times. `$literal`, since the report is part of an expression."""
    values = {
        "session": member.session,
        "weight": member.weight,
        "stopping": member.stopping,
        "drained": member.drained,
        "unfit": member.unfit,
        "idle": member.idle,
        "rate": member.rate,
        "version": member.version,
        "process": member.process,
    }
    return {name: {"$literal": value} for name, value in values.items()}


def _member(found: Mapping[str, Any]) -> Member:
    if not isinstance(found["_id"], str) or not isinstance(found["session"], str):
        raise TypeError("a report has text as its _id and session")
    return Member(
        name=found["_id"],
        session=found["session"],
        weight=float(found["weight"]),
        stopping=bool(found["stopping"]),
        drained=bool(found["drained"]),
        unfit=found["unfit"],
        idle=bool(found.get("idle", False)),
        rate=float(found["rate"]),
        version=found["version"],
        process=found["process"],
        since=found["since"].timestamp(),
        seen=found["seen"].timestamp(),
        age=float(found["age"]),
    )


def _owned(found: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    owners = found.get("owners")
    return owners.items() if isinstance(owners, Mapping) else ()


def _as_stored(owner: Owner) -> dict[str, Any]:
    return {"by": owner.by, "to": owner.to, "weight": owner.weight, "group": owner.group}


def _owner(found: Mapping[str, Any]) -> Owner:
    return Owner(found["by"], found.get("to"), float(found.get("weight", FLOOR)), found.get("group", ""))


def _key(name: str) -> str:
    """Return a watcher's name as a field's. A name never holds a percent sign."""
    return name.replace(".", "%2E").replace("$", "%24")


def _name(key: str) -> str:
    return key.replace("%2E", ".").replace("%24", "$")
