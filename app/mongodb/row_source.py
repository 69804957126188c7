"""The rows of a snapshot: collections read in the order of `_id`, as they were at a cluster time.

A read is one `find` with `readConcern: {level: snapshot, atClusterTime}` (MongoDB 5.0 and later), and no cursor is left
behind. Where it goes on it says by index bounds: `min` is a place in the index of `_id`, whatever types the keys have,
while a `$gt` in a query sees only values of its operand's type. `min` includes the key itself, so `$expr` leaves that
out: it compares as the index does, types and collation included.

A filter may fit few documents, and a read that looks for many of them would keep the changes waiting. So with a filter
or a pipeline a read gets both ends: `boundary` finds the upper one in the index alone.

From MongoDB 6.0 on a read names the collection's UUID, so that it fails where another collection has the name by now,
and says where this one went.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import bson
import pymongo
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import (
    CollectionMoved,
    Conflict,
    FieldProblem,
    Invalid,
    MomentGone,
    SourceRefused,
    SourceUnavailable,
)
from app.domain.raw_bson import elements, key_of, keys_of
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.domain.watcher import Watcher
from app.mongodb.codes import MAX_TIME_EXPIRED, Meaning, meaning_of
from app.mongodb.cursor import RAW
from app.mongodb.described import described_by, description
from app.mongodb.errors import of_command, resource_of, translated
from app.mongodb.probe import PROBE_SECONDS
from app.mongodb.raw_reply import read_documents
from app.mongodb.reach import Reach
from app.mongodb.stream import parse_pipeline
from app.mongodb.words import quiet_words
from app.ports.row_source import Rows

MONGODB_5_0: Final = 13
MONGODB_6_0: Final = 17
READ_MS: Final = 10_000
"""How long the server may work on one read."""
TOO_OLD: Final = frozenset({239, 246})
"""SnapshotTooOld; SnapshotUnavailable, which also comes of a collection that was created or renamed since."""
OTHER_UUID: Final = 361
"""CollectionUUIDMismatch."""
NO_NAMESPACE: Final = 26
_DECODED: Final[CodecOptions[dict[str, Any]]] = CodecOptions(uuid_representation=UuidRepresentation.UNSPECIFIED)


class MongoRowSource:
    """`RowSource`: one watcher's collections."""

    def __init__(self, watcher: Watcher, reach: Reach) -> None:
        self._source = watcher.source
        self._reach = reach
        self._grant = f"find on {resource_of(watcher.source)}"

    async def check(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        try:
            await self._check_version()
        except SourceRefused as error:
            raise Conflict(str(error)) from error
        found = [*(await self._problems(wanted))]
        if filter_ and (problem := await self._filter_problem(filter_, wanted)):
            found.append(FieldProblem("filter", problem))
        if found:
            raise Invalid(problems=tuple(found))

    async def _problems(self, wanted: Sequence[str]) -> list[FieldProblem]:
        """Say what is wrong with the collections that are asked for."""
        problems = []
        for index, namespace in enumerate(wanted):
            database, _, collection = namespace.partition(".")
            problem: str | None
            if not self._source.has(database, collection):
                problem = "is not among the collections that the watcher reads"
            else:
                with translated(f"looking at {namespace}", grant=self._grant, seconds=PROBE_SECONDS):
                    reply = await self._reach.client[database].command(described_by(collection))
                problem = _why_no_rows(description(reply))
            if problem is not None:
                problems.append(FieldProblem(f"collections.{index}", problem))
        return problems

    async def _filter_problem(self, filter_: Mapping[str, Any], wanted: Sequence[str]) -> str | None:
        """Have MongoDB parse the filter and plan the read, without reading."""
        try:
            query = parse_pipeline([filter_])[0]
        except Invalid as error:
            return error.problems[0].problem
        namespace = wanted[0] if wanted else ".".join(next(iter(self._source.named), (self._source.database, "")))
        database, _, collection = namespace.partition(".")
        find = {"find": collection or "snapshot", "filter": query, "sort": {"_id": 1}, "hint": {"_id": 1}, "limit": 1}
        try:
            with pymongo.timeout(PROBE_SECONDS):
                await self._reach.client[database or "test"].command("explain", find, verbosity="queryPlanner")
        except OperationFailure as error:
            if meaning_of(error) in (Meaning.PARSER, Meaning.UNSPECIFIED):
                return f"is refused by MongoDB: {quiet_words(error)}"
            raise of_command(error, doing="trying the filter", grant=self._grant) from error
        except PyMongoError as error:
            raise of_command(error, doing="trying the filter", grant=self._grant) from error
        return None

    async def parts(self, wanted: Sequence[str]) -> list[Part]:
        with translated("listing the collections of a snapshot", grant=self._grant, seconds=PROBE_SECONDS):
            found = [part async for part in self._listed()]
        return [part for part in found if not wanted or part.namespace in wanted]

    async def _listed(self) -> AsyncIterator[Part]:
        client, source = self._reach.client, self._source
        databases = [source.database] if source.database else await client.list_database_names()
        for database in sorted(databases):
            if database == self._reach.state_database or not (source.database or source.has_database(database)):
                continue
            only = {"name": source.collection} if source.collection else {}
            there = await client[database].command("listCollections", filter=only, cursor={"batchSize": 100_000})
            for each in sorted(there["cursor"]["firstBatch"], key=lambda info: str(info["name"])):
                name, kind, options = each["name"], each.get("type"), each.get("options", {})
                if kind == "collection" and source.has(database, name):
                    uuid = each.get("info", {}).get("uuid")
                    yield Part(f"{database}.{name}", None if uuid is None else uuid.hex(), bool(options.get("capped")))

    async def estimate(self, parts: Sequence[Part]) -> int | None:
        total = 0
        try:
            for part in parts:
                database, collection = _split(part)
                count = await self._reach.client[database].command("count", collection, maxTimeMS=READ_MS)
                total += int(count["n"])
        except PyMongoError:
            return None
        return total

    async def boundary(self, part: Part, after: bytes | None, count: int) -> bytes | None:
        database, collection = _split(part)
        bounds = {} if after is None else {"min": RawBSONDocument(after)}
        command = {
            "find": collection, **bounds, "sort": {"_id": 1}, "hint": {"_id": 1}, "projection": {"_id": 1},
            "skip": count, "limit": 1, "singleBatch": True, "maxTimeMS": READ_MS,
        }  # fmt: skip
        with translated(f"reading {part.namespace}", grant=self._grant):
            reply = await self._reach.client[database].command(command, codec_options=RAW)
        found = reply["cursor"]["firstBatch"]
        return key_of(bytes(found[0].raw)) if found else None

    async def read(
        self,
        part: Part,
        at: ClusterTime,
        *,
        after: bytes | None,
        until: bytes | None,
        limit: int,
        filter_: str | None,
    ) -> Rows:
        await self._check_version()
        concern = {"level": "snapshot", "atClusterTime": Timestamp(at.seconds, at.increment)}
        return await self._read(part, at, concern, after=after, until=until, limit=limit, filter_=filter_)

    async def _check_version(self) -> int:
        version = int((await self._hello())["maxWireVersion"])
        if version < MONGODB_5_0:
            raise SourceRefused(
                "a snapshot needs MongoDB 5.0 or later: earlier ones cannot be read as of a cluster time outside of a "
                "transaction"
            )
        return version

    async def _hello(self) -> Mapping[str, Any]:
        with translated("asking MongoDB what it is", seconds=PROBE_SECONDS):
            return await self._reach.hello.ask()

    async def _read(
        self,
        part: Part,
        at: ClusterTime,
        concern: Mapping[str, Any],
        *,
        after: bytes | None,
        until: bytes | None,
        limit: int,
        filter_: str | None,
    ) -> Rows:
        database, collection = _split(part)
        within = [each for each in (_after(after), _until(until), _filter(filter_)) if each]
        shared: dict[str, Any] = {"hint": {"_id": 1}, "maxTimeMS": READ_MS, "readConcern": concern}
        if part.uuid is not None and (await self._check_version()) >= MONGODB_6_0:
            shared["collectionUUID"] = Binary(bytes.fromhex(part.uuid), 4)
        whole = not self._source.pipeline
        command: dict[str, Any] = {"find": collection, "filter": {"$and": within} if within else {}, **shared}
        command |= {"sort": {"_id": 1}, "limit": limit, "batchSize": limit, "singleBatch": True}
        if after is not None:
            command["min"] = RawBSONDocument(after)
        if not whole:
            ranged = [each for each in (_from(after), _after(after), _until(until)) if each]
            stages: list[Mapping[str, Any]] = [{"$match": {"$and": ranged}}] if ranged else []
            stages += [{"$sort": {"_id": 1}}, {"$limit": limit}]
            stages += [{"$match": _filter(filter_)}] if filter_ else []
            stages += [{"$replaceWith": _insert(database, collection, at)}, *parse_pipeline(self._source.pipeline)]
            command = {"aggregate": collection, "pipeline": stages, "cursor": {"batchSize": limit}, **shared}
        try:
            reply = await self._reach.client[database].command(command, codec_options=RAW)
        except PyMongoError as error:
            raise self._explained(error, part) from error
        documents = read_documents(bytes(reply.raw))  # no copy: a whole reply is bytes
        keys = keys_of(documents) if whole else list(map(_key_in_id, documents))
        return Rows(documents, keys, documents.size, whole)

    def _explained(self, error: PyMongoError, part: Part) -> Exception:
        if isinstance(error, OperationFailure):
            if error.code in TOO_OLD:
                return MomentGone(f"MongoDB cannot read {part.namespace} as of that time: {quiet_words(error)}")
            if error.code == OTHER_UUID:
                name = (error.details or {}).get("actualCollection")
                return CollectionMoved(None if name is None else f"{part.namespace.partition('.')[0]}.{name}")
            if error.code == NO_NAMESPACE:
                return CollectionMoved(None)
            if error.code != MAX_TIME_EXPIRED and meaning_of(error) in (Meaning.PARSER, Meaning.UNSPECIFIED):
                return SourceRefused(f"MongoDB refuses to read {part.namespace} so: {quiet_words(error)}")
        return of_command(error, doing=f"reading {part.namespace}", grant=self._grant, kind=SourceUnavailable)


def _split(part: Part) -> tuple[str, str]:
    database, _, collection = part.namespace.partition(".")
    return database, collection


def _from(key: bytes | None) -> dict[str, Any] | None:
    """An aggregate has no `min`. What is compared by `$expr` alone has index bounds as well, on an index of its own."""
    return None if key is None else {"$expr": {"$gte": ["$_id", {"$literal": bson.decode(key, _DECODED)["_id"]}]}}


def _after(key: bytes | None) -> dict[str, Any] | None:
    """Matches what comes after a key in the index; as a document, which takes every type as it is."""
    return None if key is None else {"$expr": {"$gt": [{"_id": "$_id"}, {"$literal": RawBSONDocument(key)}]}}


def _until(key: bytes | None) -> dict[str, Any] | None:
    return None if key is None else {"$expr": {"$lte": [{"_id": "$_id"}, {"$literal": RawBSONDocument(key)}]}}


def _filter(text: str | None) -> dict[str, Any] | None:
    return parse_pipeline([json.loads(text)])[0] if text else None


def _insert(database: str, collection: str, at: ClusterTime) -> dict[str, Any]:
    """What a pipeline sees of a document: an insert of it. Its `_id` is the key, which no pipeline may touch."""
    return {
        "_id": {"_id": "$_id"},
        "operationType": "insert",
        "clusterTime": {"$literal": Timestamp(at.seconds, at.increment)},
        "ns": {"$literal": {"db": database, "coll": collection}},
        "documentKey": {"_id": "$_id"},
        "fullDocument": "$$ROOT",
    }


def _why_no_rows(described: Mapping[str, Any] | None) -> str | None:
    """Say in a sentence why a collection cannot be read row by row."""
    match None if described is None else described.get("type"):
        case None:
            return "does not exist"
        case "view":
            return "is a view, which has no documents of its own; take a snapshot of what it is made from"
        case "timeseries":
            return "is a time series, which has no change stream"
    return None


def _key_in_id(event: bytes) -> bytes:
    """Return the key of what came out of the pipeline."""
    for name, _, value, end in elements(event):
        if name == b"_id":
            return event[value:end]
    raise SourceRefused("the pipeline removes _id")
