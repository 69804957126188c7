"""What every source of a snapshot's rows does: collections read key by key, as they were at a moment.

What only a real server does, such as every type of key and every kind of collection, is in
`tests/integration/mongodb/test_row_source.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import bson
import pymongo
import pytest
import pytest_asyncio

from app.domain.errors import CollectionMoved, Invalid
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.domain.watcher import Source, Watcher
from app.mongodb import row_source
from app.mongodb.deployment import MongoDeployment
from app.ports import RowSource
from tests.fakes import BEGIN, FakeCollections, FakeOplog, FakeRows

KEYS = (3, "a", None, 1.5, "b", {"x": 1}, 2)
IN_ORDER = [None, 1.5, 2, 3, "a", "b", {"x": 1}]


class Place(Protocol):
    """A database with collections to be read."""

    source: RowSource
    database: str

    def put(self, collection: str, key: Any, **fields: Any) -> None: ...
    def delete(self, collection: str, key: Any) -> None: ...
    def drop(self, collection: str) -> None: ...
    def rename(self, collection: str, to: str) -> None: ...
    def now(self) -> ClusterTime: ...


@dataclass
class FakePlace:
    database: str

    def __post_init__(self) -> None:
        self.collections = FakeCollections(FakeOplog())
        self.source: RowSource = FakeRows(self.collections, Source(self.database))

    def put(self, collection: str, key: Any, **fields: Any) -> None:
        self.collections.put(f"{self.database}.{collection}", key, **fields)

    def delete(self, collection: str, key: Any) -> None:
        self.collections.delete(f"{self.database}.{collection}", key)

    def drop(self, collection: str) -> None:
        self.collections.drop(f"{self.database}.{collection}")

    def rename(self, collection: str, to: str) -> None:
        self.collections.rename(f"{self.database}.{collection}", f"{self.database}.{to}")

    def now(self) -> ClusterTime:
        return ClusterTime(BEGIN + self.collections.oplog.moment, 1)


@dataclass
class MongoPlace:
    database: str
    client: pymongo.MongoClient[dict[str, Any]]
    source: RowSource

    def put(self, collection: str, key: Any, **fields: Any) -> None:
        self.client[self.database][collection].replace_one({"_id": key}, {"_id": key, **fields}, upsert=True)

    def delete(self, collection: str, key: Any) -> None:
        self.client[self.database][collection].delete_one({"_id": key})

    def drop(self, collection: str) -> None:
        self.client[self.database].drop_collection(collection)

    def rename(self, collection: str, to: str) -> None:
        self.client[self.database][collection].rename(to)

    def now(self) -> ClusterTime:
        time = self.client.admin.command("ping")["operationTime"]
        return ClusterTime(time.time, time.inc)


@pytest_asyncio.fixture(params=["fake", "mongo"])
async def place(request: pytest.FixtureRequest, mongo_uri: str, database: str) -> AsyncIterator[Place]:
    if request.param == "fake":
        yield FakePlace(database)
        return
    deployment = MongoDeployment(mongo_uri, state_database=f"{database}_state")
    with pymongo.MongoClient[dict[str, Any]](mongo_uri, w="majority") as client:
        yield MongoPlace(database, client, deployment.rows(Watcher("w", Source(database))))
        client.drop_database(database)
    deployment.close()


async def part_of(place: Place, collection: str) -> Part:
    return next(part for part in await place.source.parts(()) if part.namespace == f"{place.database}.{collection}")


async def read_all(
    place: Place, part: Part, at: ClusterTime, *, limit: int = 2, filter_: str | None = None
) -> list[dict[str, Any]]:
    """Read a collection to its end, so many at a time."""
    found: list[dict[str, Any]] = []
    after: bytes | None = None
    while True:
        rows = await place.source.read(part, at, after=after, until=None, limit=limit, filter_=filter_)
        if not rows.keys:
            return found
        assert len(rows.keys) == len(rows.documents) <= limit
        assert rows.size == sum(map(len, rows.documents))
        documents = [bson.decode(document) for document in rows.documents]
        assert [bson.decode(key) for key in rows.keys] == [{"_id": document["_id"]} for document in documents]
        found += documents
        after = rows.keys[-1]


async def test_keys_of_all_types_come_in_their_order_and_none_is_missed(place: Place) -> None:
    for key in KEYS:
        place.put("a", key)
    part = await part_of(place, "a")
    for limit in (1, 2, 100):
        assert [row["_id"] for row in await read_all(place, part, place.now(), limit=limit)] == IN_ORDER


async def test_documents_are_read_as_they_were_at_the_moment_that_is_asked_for(place: Place) -> None:
    for key in range(4):
        place.put("a", key, n=1)
    then, part = place.now(), await part_of(place, "a")
    place.put("a", 1, n=2)
    place.delete("a", 2)
    place.put("a", 9, n=2)
    assert [(row["_id"], row["n"]) for row in await read_all(place, part, then)] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert [(row["_id"], row["n"]) for row in await read_all(place, part, place.now())] == [
        (0, 1), (1, 2), (3, 1), (9, 2),
    ]  # fmt: skip


async def test_a_filter_leaves_documents_out_and_a_read_ends_where_it_is_told_to(place: Place) -> None:
    for key in range(10):
        place.put("a", key, kind="odd" if key % 2 else "even")
    part, at = await part_of(place, "a"), place.now()
    found = await read_all(place, part, at, filter_='{"kind": "odd"}')
    assert [row["_id"] for row in found] == [1, 3, 5, 7, 9]
    after, until = bson.encode({"_id": 2}), bson.encode({"_id": 7})
    rows = await place.source.read(part, at, after=after, until=until, limit=10, filter_='{"kind": "odd"}')
    assert ([bson.decode(key)["_id"] for key in rows.keys], rows.more) == ([3, 5, 7], False)
    rows = await place.source.read(part, at, after=after, until=until, limit=2, filter_=None)
    assert ([bson.decode(key)["_id"] for key in rows.keys], rows.more) == ([3, 4], True)


async def test_a_boundary_lies_so_many_documents_further_on_and_none_at_the_end(place: Place) -> None:
    for key in range(10):
        place.put("a", key)
    part = await part_of(place, "a")
    found = await place.source.boundary(part, bson.encode({"_id": 3}), 4)
    assert found is not None
    assert bson.decode(found)["_id"] in (7, 8)  # about so many
    assert await place.source.boundary(part, None, 4) is not None
    assert await place.source.boundary(part, bson.encode({"_id": 7}), 4) is None


async def test_the_parts_are_the_collections_by_name_or_those_that_are_wanted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_source, "ESTIMATE_SECONDS", 30.0)
    for collection in ("b", "a", "c"):
        place.put(collection, 1)
    names = [f"{place.database}.{collection}" for collection in "abc"]
    parts = await place.source.parts(())
    assert [part.namespace for part in parts] == names
    assert len({part.uuid for part in parts}) == 3
    assert [part.namespace for part in await place.source.parts(names[1:2])] == names[1:2]
    assert await place.source.estimate(parts) == 3


async def test_a_collection_that_is_not_watched_or_not_there_is_refused(place: Place) -> None:
    place.put("a", 1)
    await place.source.check(None, [f"{place.database}.a"])
    with pytest.raises(Invalid) as caught:
        await place.source.check(None, [f"{place.database}.a", f"{place.database}.none", "elsewhere.a"])
    assert [problem.field for problem in caught.value.problems] == ["collections.1", "collections.2"]


async def test_a_collection_that_has_another_name_or_is_gone_says_so(place: Place) -> None:
    """From MongoDB 6.0 on, as the session's is."""
    for collection in ("a", "b"):
        place.put(collection, 1)
    one, other = await part_of(place, "a"), await part_of(place, "b")
    place.rename("a", "c")
    place.drop("b")
    for part, name in ((one, f"{place.database}.c"), (other, None)):
        with pytest.raises(CollectionMoved) as caught:
            await place.source.read(part, place.now(), after=None, until=None, limit=5, filter_=None)
        assert caught.value.namespace == name


async def test_nothing_that_happened_before_is_later_than_the_time_that_it_tells(place: Place) -> None:
    told = []
    for key in range(5):
        place.put("a", key)
        then = place.now()
        told.append(await place.source.now())
        assert told[-1] >= then
    assert told == sorted(told)
