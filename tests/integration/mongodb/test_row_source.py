"""The rows of a snapshot on real servers: every key of every type once, in the index's order, as of one time."""

from __future__ import annotations

import asyncio
import datetime
import json
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio
from bson import Binary, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import WriteError

from app.domain.errors import (
    CollectionMoved,
    Conflict,
    Invalid,
    MomentGone,
    ReadTooLong,
    SourceRefused,
)
from app.domain.raw_bson import document_of, key_of
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.domain.watcher import Source, Watcher
from app.mongodb import capped_rows, row_commands, row_source
from app.mongodb.deployment import MongoDeployment
from app.ports import Rows, RowSource

RAW = CodecOptions(document_class=RawBSONDocument)
KEYS: tuple[Any, ...] = (
    1, Int64(2), 2.5, float("nan"), float("inf"), float("-inf"), -0.0, 2**53 + 1, float(2**53), 0.1, Decimal128("0.1"),
    Decimal128("3.25"), Decimal128("1E+6000"), Decimal128("-1E-6100"), "a", "B", "", "a\0b", "ünïcode", "x" * 2000,
    ObjectId(), ObjectId("0" * 24), {"a": 1, "b": "c"}, {"b": 1}, {}, {"a": [1, {"x": 1}]}, None, Binary(b"abc"),
    Binary(b"ab", 2), Binary(b"\0" * 16, 3), Binary(b"\1" * 16, 4), Binary(b"x", 128), True, False,
    DatetimeMS(2**62), DatetimeMS(-(2**62)), datetime.datetime(2020, 1, 1), Timestamp(5, 6), MinKey(), MaxKey(),
)  # fmt: skip


def element(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + b"_id\0" + value


OBSOLETE = {
    "symbol": element(0x0E, struct.pack("<i", 4) + b"sym\0"),
    "code": element(0x0D, struct.pack("<i", 4) + b"cod\0"),
    "code with scope": element(0x0F, struct.pack("<ii", 17, 4) + b"cod\0" + b"\5\0\0\0\0"),
    "pointer": element(0x0C, struct.pack("<i", 4) + b"abc\0" + b"1" * 12),
}
"""Keys that pymongo does not write as they are."""


class Place:
    """A database, and row sources of watchers that read it."""

    def __init__(self, uri: str, database: str) -> None:
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.database = self.client[database]
        self.deployment = MongoDeployment(uri, state_database="changewire")

    def rows(self, collection: str = "", **source: Any) -> RowSource:
        return self.deployment.rows(Watcher("w", Source(self.database.name, collection, **source)))

    def now(self) -> ClusterTime:
        at = self.client.admin.command("hello")["operationTime"]
        return ClusterTime(at.time, at.inc)

    async def part(self, collection: str = "things") -> Part:
        return next(one for one in await self.rows(collection).parts(()))

    def stored(self, collection: str = "things") -> list[bytes]:
        """All documents in the order of the index."""
        found: Any = self.database.get_collection(collection, codec_options=RAW).find({}, sort=[("_id", 1)])
        return [bytes(each.raw) for each in found.hint([("_id", 1)])]


@pytest.fixture(params=["mongo_uri", "newer_mongo_uri"])
def uri(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest_asyncio.fixture
async def place(uri: str, database: str) -> AsyncIterator[Place]:
    made = Place(uri, database)
    yield made
    made.deployment.close()
    made.client.drop_database(database)
    made.client.close()


def fill_with_every_key(place: Place, **options: Any) -> int:
    collection = place.database.create_collection("things", **options)
    for key in KEYS:
        collection.insert_one({"_id": key, "n": 1})
    for name, raw in OBSOLETE.items():
        if name == "symbol" and options:
            continue  # no index with a collation takes it
        document = document_of(raw, b"\x10n\0\1\0\0\0")
        assert not place.database.command("insert", "things", documents=[RawBSONDocument(document)]).get("writeErrors")
    return collection.count_documents({})


async def all_of(
    rows: RowSource, part: Part, at: ClusterTime, *, limit: int, scanned: int | None = None, filter_: str | None = None
) -> list[bytes]:
    """Read a collection to its end as a snapshot does."""
    found: list[bytes] = []
    after: bytes | None = None
    while True:
        until = None if scanned is None else await rows.boundary(part, after, scanned)
        came = await rows.read(part, at, after=after, until=until, limit=limit, filter_=filter_)
        assert len(came.documents) == len(came.keys) <= limit
        assert came.size == sum(map(len, came.documents))
        found += came.documents
        if came.keys and (came.more or until is None):
            until = came.keys[-1]
        if until is None:
            return found
        after = until


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "collation": {"collation": {"locale": "en", "strength": 2}},
    "clustered": {"clusteredIndex": {"key": {"_id": 1}, "unique": True}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_every_key_comes_once_whatever_its_type(place: Place, kind: str, limit: int) -> None:
    count = fill_with_every_key(place, **KINDS[kind])
    part = await place.part()
    assert part.clustered == (kind == "clustered")
    found = await all_of(place.rows("things"), part, place.now(), limit=limit)
    assert found == place.stored()
    assert len(found) == count >= len(KEYS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scanned", "limit"), [(1, 1), (1, 100), (4, 3), (100, 100)])
async def test_a_filter_leaves_out_no_key_that_it_matches(place: Place, kind: str, scanned: int, limit: int) -> None:
    fill_with_every_key(place, **KINDS[kind])
    rows, part, at = place.rows("things"), await place.part(), place.now()
    assert await all_of(rows, part, at, limit=limit, scanned=scanned, filter_='{"n": 1}') == place.stored()
    assert await all_of(rows, part, at, limit=limit, scanned=scanned, filter_='{"n": 2}') == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scanned", "limit"), [(1, 1), (4, 3), (100, 100)])
async def test_a_pipeline_sees_every_document_as_an_insert(place: Place, kind: str, scanned: int, limit: int) -> None:
    fill_with_every_key(place, **KINDS[kind])
    stages = ({"$match": {"operationType": "insert", "fullDocument.n": 1}}, {"$project": {"fullDocument.n": 0}})
    rows = place.rows("things", pipeline=stages)
    found = await all_of(rows, await place.part(), place.now(), limit=limit, scanned=scanned)
    stored = place.stored()
    events = [RawBSONDocument(each) for each in found]
    assert [bytes(event["fullDocument"].raw) for event in events] == list(map(key_of, stored))
    assert [bytes(event["documentKey"].raw) for event in events] == list(map(key_of, stored))


async def test_a_read_is_as_of_its_time_whatever_happened_since(place: Place) -> None:
    things = place.database["things"]
    things.insert_many([{"_id": n, "n": n} for n in range(20)])
    before, part, at = place.stored(), await place.part(), place.now()
    things.update_many({"_id": {"$lt": 5}}, {"$set": {"n": -1}})
    things.delete_many({"_id": {"$gt": 10}})
    things.insert_one({"_id": 5.5})
    assert await all_of(place.rows("things"), part, at, limit=3) == before
    assert await all_of(place.rows("things"), part, at, limit=3, scanned=4, filter_='{"n": {"$gte": 0}}') == before


async def test_a_reply_that_is_full_says_that_there_is_more(place: Place) -> None:
    """MongoDB ends a reply at 16 MB: what comes after that is read next."""
    things = place.database["things"]
    for first in range(0, 12_000, 2000):
        things.insert_many([{"_id": n, "x": b"x" * 2000} for n in range(first, first + 2000)])
    part, at = await place.part(), place.now()
    came = await place.rows("things").read(part, at, after=None, until=None, limit=12_000, filter_='{"x": {"$ne": 1}}')
    assert came.more
    assert 8000 < len(came.keys) < 9000
    for rows, filter_ in ((place.rows("things"), '{"x": {"$ne": 1}}'), (place.rows("things"), None), (
        place.rows("things", pipeline=({"$match": {}},)), None,
    )):  # fmt: skip
        found = await all_of(rows, part, at, limit=10_000, scanned=10_000, filter_=filter_)
        assert len(found) == 12_000


async def test_no_cursor_is_left_behind(place: Place) -> None:
    things = place.database["things"]
    things.insert_many([{"_id": n} for n in range(100)])
    part, at = await place.part(), place.now()
    for rows in (place.rows("things"), place.rows("things", pipeline=({"$match": {}},))):
        assert (await rows.read(part, at, after=None, until=None, limit=10, filter_="{}")).more is bool(rows)
        await all_of(rows, part, at, limit=7, scanned=20, filter_='{"_id": {"$gt": 3}}')
    pipeline: list[dict[str, Any]] = [
        {"$currentOp": {"idleCursors": True, "allUsers": True}},
        {"$match": {"ns": part.namespace}},
    ]
    assert list(place.client.admin.aggregate(pipeline)) == []


async def test_documents_of_16_megabytes_come_one_by_one(place: Place) -> None:
    things = place.database["things"]
    for n in range(3):
        things.insert_one({"_id": n, "x": b"x" * (16 * 1024 * 1024 - 28)})
    part, at = await place.part(), place.now()
    assert await all_of(place.rows("things"), part, at, limit=100) == place.stored()
    assert len(await all_of(place.rows("things", pipeline=({"$match": {}},)), part, at, limit=100, scanned=2)) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_filter_that_matches_little_does_not_read_to_the_end(place: Place, kind: str) -> None:
    things = place.database.create_collection("things", **KINDS[kind])
    things.insert_many([{"_id": n, "n": n % 100} for n in range(5000)])
    part, after, until = await place.part(), bson.encode({"_id": 1000}), bson.encode({"_id": 1500})
    commands = [row_commands.find_rows(part, after=after, until=until, limit=100, filter_='{"n": 7}')]
    commands.append(
        row_commands.piped_rows(part, ClusterTime(1, 1), (), after=after, until=until, limit=100, filter_='{"n": 7}')
    )
    for command in commands:
        for option in ("batchSize", "comment", "maxTimeMS"):
            command.pop(option, None)
        explained = place.database.command("explain", command, verbosity="executionStats")
        looked_at = json.dumps(explained, default=str).partition('"totalDocsExamined": ')[2].partition(",")[0]
        assert int(looked_at) < 600


# Collections that come, go and change their names


async def test_a_renamed_collection_is_read_under_its_new_name_from_the_renaming_on(place: Place) -> None:
    things = place.database["things"]
    things.insert_one({"_id": 1})
    part, before, rows = await place.part(), place.now(), place.rows()
    things.rename("others")
    with pytest.raises(CollectionMoved) as moved:
        await rows.read(part, place.now(), after=None, until=None, limit=10, filter_=None)
    assert moved.value.namespace == f"{place.database.name}.others"
    now = Part(moved.value.namespace, part.uuid)
    with pytest.raises(MomentGone):  # rows of the new name have no place before the renaming
        await rows.read(now, before, after=None, until=None, limit=10, filter_=None)
    assert len((await rows.read(now, place.now(), after=None, until=None, limit=10, filter_=None)).keys) == 1


@pytest.mark.parametrize("instead", ["nothing", "another", "view", "time series", "capped", "renamed onto"])
async def test_a_collection_that_is_gone_is_told_from_what_has_its_name(place: Place, instead: str) -> None:
    database, things = place.database, place.database["things"]
    things.insert_one({"_id": 1})
    part, rows = await place.part(), place.rows()
    if instead == "capped":
        database.command("convertToCapped", "things", size=100_000)
    elif instead == "renamed onto":
        database["others"].insert_one({"_id": 2})
        database["others"].rename("things", dropTarget=True)
    else:
        things.drop()
    match instead:
        case "another":
            things.insert_one({"_id": 2})
        case "view":
            database.create_collection("things", viewOn="others", pipeline=[])
        case "time series":
            database.create_collection("things", timeseries={"timeField": "t"})
    piped = place.rows(pipeline=({"$match": {}},))
    for reader in (rows, piped):
        with pytest.raises(CollectionMoved) as moved:
            await reader.read(part, place.now(), after=None, until=None, limit=10, filter_=None)
        assert moved.value.namespace is None
    if instead != "capped":  # whose uuid is looked at only after its kind
        with pytest.raises(CollectionMoved):
            await rows.boundary(part, None, 10)


@pytest.mark.parametrize("gone", ["dropped", "renamed", "another"])
async def test_where_a_read_cannot_name_the_uuid_one_that_finds_nothing_says_that_the_collection_is_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """As with MongoDB 5.0: it finds no documents then, and says no more."""
    monkeypatch.setattr(row_source, "MONGODB_6_0", 1_000)
    things = place.database["things"]
    things.insert_one({"_id": 1})
    part, at, rows = await place.part(), place.now(), place.rows()
    key = (await rows.read(part, at, after=None, until=None, limit=10, filter_=None)).keys[-1]
    assert not (await rows.read(part, at, after=key, until=None, limit=10, filter_=None)).keys
    if gone == "renamed":
        things.rename("others")
    else:
        things.drop()
    if gone == "another":
        at = place.now()
        things.insert_one({"_id": 0})
    with pytest.raises((CollectionMoved, MomentGone)) as moved:
        await rows.read(part, at, after=None, until=None, limit=10, filter_=None)
    if gone != "another":
        assert isinstance(moved.value, CollectionMoved)
    at = place.now()
    with pytest.raises(CollectionMoved):
        await rows.read(part, at, after=key, until=None, limit=10, filter_=None)


async def test_which_collections_are_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_source, "ESTIMATE_SECONDS", 30.0)
    database = place.database
    for name in ("b", "a", "left out"):
        database[name].insert_one({"_id": 1})
    database.create_collection("capped", capped=True, size=100_000)
    database.create_collection("view", viewOn="a", pipeline=[])
    database.create_collection("series", timeseries={"timeField": "t"})
    database["series"].insert_one({"t": datetime.datetime(2020, 1, 1)})
    parts = await place.rows(exclude=("left*",)).parts(())
    names = [each.namespace.partition(".")[2] for each in parts]
    assert names == ["a", "b", "capped"]
    assert [each.capped for each in parts] == [False, False, True]
    assert await place.rows().parts([f"{database.name}.b"]) == [parts[1]]
    assert await place.rows("absent").parts(()) == []
    assert await place.rows("view").parts(()) == []
    assert await place.rows().estimate(parts) == 2
    whole = place.deployment.rows(Watcher("w", Source(include=(f"{database.name}.*",), exclude=("*.left out",))))
    assert await whole.parts(()) == parts


async def test_a_database_of_many_collections_is_listed_to_its_end(place: Place) -> None:
    """A reply to `listCollections` ends at 16 MB; options of collections may be large."""
    validator = {"$jsonSchema": {"description": "x" * 1_000_000}}
    for n in range(20):
        place.database.create_collection(f"c{n:02}", validator=validator)
    assert len(await place.rows().parts(())) == 20


# What is refused


async def test_views_and_time_series_are_refused_with_the_reason(place: Place) -> None:
    database = place.database
    database.create_collection("view", viewOn="a", pipeline=[])
    database.create_collection("series", timeseries={"timeField": "t"})
    database["there"].insert_one({"_id": 1})
    wanted = [f"{database.name}.{name}" for name in ("view", "series", "absent", "there", "left")] + ["other.there"]
    with pytest.raises(Invalid) as refused:
        await place.rows(exclude=("left",)).check(None, wanted)
    said = {problem.field: problem.problem for problem in refused.value.problems}
    assert list(said) == ["collections.0", "collections.1", "collections.2", "collections.4", "collections.5"]
    assert "is a view" in said["collections.0"]
    assert "is a time series" in said["collections.1"]
    assert "does not exist" in said["collections.2"]
    assert "is not among the collections" in said["collections.5"]
    for name, reason in (("view", "is a view"), ("series", "is a time series")):
        with pytest.raises(Conflict, match=reason):
            await place.rows(name).check(None, ())
    await place.rows("absent").check(None, ())
    await place.rows().check(None, ())


@pytest.mark.parametrize(
    "filter_",
    [
        {"$text": {"$search": "a"}},
        {"place": {"$near": [0, 0]}},
        {"a": {"$bad": 1}},
        {"$expr": {"$noSuch": 1}},
        {"a": {"$oid": "x"}},
    ],
)
async def test_a_filter_that_mongodb_refuses_is_refused_beforehand(place: Place, filter_: dict[str, Any]) -> None:
    place.database["things"].insert_one({"_id": 1, "text": "a", "place": [0, 0]})
    place.database["things"].create_index([("text", "text")])
    place.database["things"].create_index([("place", "2d")])
    for rows in (place.rows("things"), place.rows(), place.rows("things", pipeline=({"$match": {}},))):
        with pytest.raises(Invalid) as refused:
            await rows.check(filter_, ())
        assert [each.field for each in refused.value.problems] == ["filter"]


async def test_a_filter_that_only_a_find_takes_is_refused_where_there_is_a_pipeline(place: Place) -> None:
    place.database["things"].insert_one({"_id": 1})
    await place.rows("things").check({"$where": "true"}, ())
    with pytest.raises(Invalid, match="pipeline"):
        await place.rows("things", pipeline=({"$match": {}},)).check({"$where": "true"}, ())


@pytest.mark.parametrize(
    "filter_",
    [{"$expr": {"$gt": [{"$toInt": "$a"}, 0]}}, {"$expr": {"$gt": [{"$divide": [1, "$zero"]}, 0]}}],
)
async def test_a_filter_that_fails_on_a_document_is_said_to_be_refused(place: Place, filter_: dict[str, Any]) -> None:
    place.database["things"].insert_one({"_id": 1, "a": "secret words", "zero": 0})
    part, text = await place.part(), json.dumps(filter_)
    for rows in (place.rows("things"), place.rows("things", pipeline=({"$match": {}},))):
        await rows.check(filter_, ())
        with pytest.raises(SourceRefused) as refused:
            await rows.read(part, place.now(), after=None, until=None, limit=10, filter_=text)
        assert "secret" not in str(refused.value)


async def test_a_read_that_takes_too_long_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(row_commands._SHARED, "maxTimeMS", 50)
    place.database["things"].insert_many([{"_id": n} for n in range(20)])
    slow, part = '{"$where": "sleep(20) || true"}', await place.part()
    with pytest.raises(ReadTooLong):
        await place.rows("things").read(part, place.now(), after=None, until=None, limit=100, filter_=slow)


async def test_a_time_that_is_not_there_is_gone(place: Place) -> None:
    before = place.now()
    place.database["things"].insert_one({"_id": 1})
    place.database["things"].rename("others")
    place.database["others"].rename("things")
    part = await place.part()
    for at in (before, ClusterTime(before.seconds - 100_000, 1)):
        with pytest.raises(MomentGone):
            await place.rows("things").read(part, at, after=None, until=None, limit=10, filter_=None)


async def test_an_earlier_mongodb_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_source, "MONGODB_5_0", 99)
    place.database["things"].insert_one({"_id": 1})
    with pytest.raises(Conflict, match=r"needs MongoDB 5\.0"):
        await place.rows("things").check(None, ())
    with pytest.raises(SourceRefused, match=r"needs MongoDB 5\.0"):
        await place.rows("things").read(await place.part(), place.now(), after=None, until=None, limit=1, filter_=None)


# Capped collections


@pytest.fixture
def capped(place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(capped_rows, "SECONDS", 30.0)
    return place.database.create_collection("things", capped=True, size=10_000_000)


async def test_a_capped_collection_is_read_whole(place: Place, capped: Any) -> None:
    for key in KEYS:
        capped.insert_one({"_id": key, "n": 1})
    part, at = await place.part(), place.now()
    assert part.capped
    for rows, scanned, filter_ in (
        (place.rows("things"), None, None),
        (place.rows("things"), 4, '{"n": 1}'),
    ):
        assert await all_of(rows, part, at, limit=3, scanned=scanned, filter_=filter_) == place.stored()
    piped = place.rows("things", pipeline=({"$match": {"fullDocument.n": 1}},))
    assert len(await all_of(piped, part, at, limit=3, scanned=4)) == len(KEYS)


async def test_of_a_capped_collection_nothing_is_read_that_is_newer_than_the_time(place: Place, capped: Any) -> None:
    capped.insert_many([{"_id": n, "n": n} for n in range(10)])
    before, part, at = place.stored(), await place.part(), place.now()
    capped.insert_many([{"_id": n + 0.5} for n in range(10)])
    capped.insert_many([{"_id": n, "n": n} for n in range(10, 1500)])
    capped.delete_one({"_id": 3})
    found = await all_of(place.rows("things"), part, at, limit=100)
    assert found == [each for each in before if bson.decode(each)["_id"] != 3]


async def test_rows_of_a_capped_collection_end_before_a_document_that_was_updated_since(
    place: Place, capped: Any
) -> None:
    capped.insert_many([{"_id": n, "n": n} for n in range(10)])
    before, part, at, rows = place.stored(), await place.part(), place.now(), place.rows("things")
    capped.update_one({"_id": 4}, {"$set": {"n": -1}})
    came = await rows.read(part, at, after=None, until=None, limit=100, filter_=None)
    assert came.documents == before[:4]
    assert came.more
    with pytest.raises(MomentGone, match="is capped"):
        await rows.read(part, at, after=came.keys[-1], until=None, limit=100, filter_=None)
    came = await rows.read(part, place.now(), after=came.keys[-1], until=None, limit=100, filter_=None)
    assert came.documents == place.stored()[4:]


@pytest.fixture
def busy(place: Place, capped: Any) -> Iterator[None]:
    """Documents of the capped collection are updated all the time, so that each one's number only grows."""
    capped.insert_many([{"_id": n, "n": 0} for n in range(300)])
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            capped.update_one({"_id": number * 7919 % 300}, {"$set": {"n": number}})

    writer = threading.Thread(target=write)
    writer.start()
    yield
    over.set()
    writer.join()


@pytest.mark.usefixtures("busy")
async def test_each_row_of_a_busy_capped_collection_is_what_it_was_at_its_time(place: Place, capped: Any) -> None:
    rows, part = place.rows("things"), await place.part()
    told: list[tuple[ClusterTime, Rows]] = []
    after: bytes | None = None
    began = place.now()
    while True:
        at = place.now()
        try:
            came = await rows.read(part, at, after=after, until=None, limit=50, filter_=None)
        except MomentGone:
            continue
        if not came.keys:
            break
        told.append((at, came))
        after = came.keys[-1]
    documents = [(at, bson.decode(each)) for at, came in told for each in came.documents]
    assert [each["_id"] for _, each in documents] == list(range(300))
    # What each document was, by its changes.
    numbers: dict[int, list[tuple[ClusterTime, int]]] = {n: [(ClusterTime(0, 0), 0)] for n in range(300)}
    start = Timestamp(began.seconds, began.increment)
    updates = [{"$match": {"operationType": "update"}}]
    with capped.watch(updates, start_at_operation_time=start, max_await_time_ms=100) as changes:
        for change in changes:
            time = change["clusterTime"]
            at = ClusterTime(time.time, time.inc)
            numbers[change["documentKey"]["_id"]].append((at, change["updateDescription"]["updatedFields"]["n"]))
            if at > documents[-1][0]:
                break
    for at, each in documents:
        known = [number for time, number in numbers[each["_id"]] if time <= at]
        assert each["n"] == known[-1] or len(known) == 1


async def test_a_capped_collection_that_is_dropped_while_it_is_read_is_gone(place: Place, capped: Any) -> None:
    capped.insert_one({"_id": 1})
    part, at = await place.part(), place.now()
    capped.drop()
    with pytest.raises(CollectionMoved):
        await place.rows("things").read(part, at, after=None, until=None, limit=10, filter_=None)
    place.database["others"].insert_one({"_id": 1})
    with pytest.raises(CollectionMoved):
        await place.rows("things").read(part, at, after=None, until=None, limit=10, filter_=None)


async def test_reads_at_once_do_not_disturb_one_another(place: Place) -> None:
    place.database["things"].insert_many([{"_id": n} for n in range(200)])
    part, at = await place.part(), place.now()
    found = await asyncio.gather(*(all_of(place.rows("things"), part, at, limit=n) for n in (3, 7, 50, 500)))
    assert all(each == place.stored() for each in found)


def test_keys_that_mongodb_does_not_store_need_no_care(mongo_uri: str, database: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        for kind, value in ((0x04, b"\5\0\0\0\0"), (0x06, b""), (0x0B, b"a\0i\0")):
            raw = RawBSONDocument(document_of(element(kind, value)))
            reply = client[database].command("insert", "things", documents=[raw])
            assert "cannot be of type" in reply["writeErrors"][0]["errmsg"]
        client[database].command({"insert": "things", "documents": [RawBSONDocument(bson.encode({"a": 1, "_id": 5}))]})
        assert list(client[database]["things"].find_one({}) or ()) == ["_id", "a"]  # moved to the front
        with pytest.raises(WriteError):
            client[database]["things"].insert_one({"_id": {"$a": 1}})
        client.drop_database(database)
