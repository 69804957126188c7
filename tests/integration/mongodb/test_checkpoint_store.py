"""Positions in a real mongod: beside mongodb-nats-connector's documents, in capped collections, in an outage."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import bson
import pymongo
import pytest

from app.devservers.servers import MongoServer
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import (
    Invalid,
    NotAuthorised,
    StoreUnavailable,
)
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Watcher
from app.mongodb.deployment import MongoDeployment
from app.ports import CheckpointStore
from tests.fakes import BEGIN, event_token
from tests.integration.mongodb.bench import SOCKET_SECONDS, Client, MakeMongo, found_again


def store(mongo: MongoDeployment, database: str, *, capped: int = 0, collection: str = "tokens") -> CheckpointStore:
    place = CheckpointPlace(database, collection, capped=bool(capped), size_in_bytes=capped)
    return mongo.checkpoints(Watcher("w", Source("shop", "orders"), checkpoint=place))


def at(moment: int, epoch: int | None = 0) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=epoch, updated_at=float(BEGIN))


def connector_writes(collection: pymongo.collection.Collection[dict[str, Any]], *moments: int) -> None:
    for moment in moments:
        collection.insert_one({"value": event_token(moment)})


def connector_reads(collection: pymongo.collection.Collection[dict[str, Any]]) -> str:
    """As the Go connector does: the newest by `_id`, or by `$natural` where capped."""
    by = "$natural" if collection.options().get("capped") else "_id"
    found = collection.find_one({}, sort=[(by, -1)])
    assert found is not None
    return str(found["value"])


async def test_mongodb_nats_connectors_newest_document_is_continued_in_place(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    tokens = client[database].tokens
    connector_writes(tokens, 1, 2, 3)
    one = store(mongo, database)
    assert await one.read() == Checkpoint(event_token(3))
    assert not await one.create(at(9))
    assert not await one.advance(at(2, 4))
    assert await one.advance(at(5, 4))
    assert not await one.advance(at(6, 3))
    assert tokens.count_documents({}) == 3
    assert connector_reads(tokens) == event_token(5)


async def test_a_checkpoint_from_before_own_messages_were_remembered_is_read(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    older = {"value": event_token(3), "sequence": 7, "streamCreated": "2026-01-01T00:00:00Z", "epoch": 1}
    older["clusterTime"] = bson.Timestamp(BEGIN + 3, 1)
    client[database].tokens.insert_one(older)
    assert await store(mongo, database).read() == Checkpoint(event_token(3), 1, 7, "2026-01-01T00:00:00Z")


async def test_going_back_to_mongodb_nats_connector_and_returning_needs_no_step(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    tokens = client[database].tokens
    assert await store(mongo, database).create(at(1))
    await store(mongo, database).advance(at(2))
    assert connector_reads(tokens) == event_token(2)
    connector_writes(tokens, 3, 4)
    back = store(mongo, database)
    assert await back.read() == Checkpoint(event_token(4))
    assert await back.advance(at(5))
    assert connector_reads(tokens) == event_token(5)
    await back.begin(at(1, 1))
    assert connector_reads(tokens) == event_token(1)


async def test_a_capped_collection_goes_full_circle_between_both_programs(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    tokens = client[database].create_collection("tokens", capped=True, size=4096)
    moment = 0
    for _ in range(3):
        connector_writes(tokens, *range(moment + 1, moment + 61))  # more than it holds
        moment += 60
        one = store(mongo, database, capped=4096)
        assert await one.read() == Checkpoint(event_token(moment))
        assert not await one.create(at(moment + 9))
        for _ in range(40):
            moment += 1
            assert await one.advance(at(moment))
        assert not await one.advance(at(moment))
        assert connector_reads(tokens) == event_token(moment)
        assert await store(mongo, database, capped=4096).read() == at(moment)


async def test_a_lesser_position_inserted_last_by_a_slower_writer_is_not_believed(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    fast, slow = store(mongo, database, capped=8192), store(mongo, database, capped=8192)
    await fast.create(at(1))
    await slow.read()
    await fast.advance(at(9))
    stale = client[database].tokens.find_one({"value": event_token(1)}, {"_id": 0})
    assert stale is not None
    client[database].tokens.insert_one(dict(stale))  # what two inserts at once may leave
    assert await slow.read() == at(9)
    assert not await slow.advance(at(5))
    await fast.begin(at(3, 1))
    client[database].tokens.insert_one(dict(stale))
    assert await slow.read() == at(3, 1)


async def test_a_missing_capped_collection_is_made_as_asked_and_one_that_is_there_is_used_as_it_is(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    await store(mongo, database, capped=8192).create(at(1))
    options = client[database].tokens.options()
    assert options["capped"]
    assert options["size"] == 8192
    await store(mongo, database).advance(at(2))  # not asked for capped, but it is
    assert client[database].tokens.count_documents({}) == 2
    client[database].tokens.drop()
    client[database].create_collection("tokens")
    one = store(mongo, database, capped=8192)
    await one.create(at(1))
    await one.advance(at(2))
    assert client[database].tokens.count_documents({}) == 1


async def test_the_stored_types_are_what_people_and_programs_look_for(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    await store(mongo, database).create(at(7))
    found = client[database].tokens.find_one()
    assert found is not None
    assert found["value"] == event_token(7)
    assert found["clusterTime"] == bson.Timestamp(BEGIN + 7, 1)
    assert found["updatedAt"] == datetime.fromtimestamp(BEGIN, UTC).replace(tzinfo=None)
    assert set(found) == {
        "_id", "value", "clusterTime", "sequence", "streamCreated", "epoch", "scope", "watcher", "updatedAt",
        "stream", "subject", "selection", "ownSequence", "ownId", "home", "counted", "registry", "row",
    }  # fmt: skip


async def test_deleting_forgets_mongodb_nats_connectors_too_and_nothing_that_is_no_checkpoint(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    tokens = client[database].tokens
    connector_writes(tokens, 1, 2)
    tokens.insert_one({"name": "somebody's"})
    one = store(mongo, database)
    assert await one.read() == Checkpoint(event_token(2))
    await one.delete()
    assert await one.read() is None
    assert [document["name"] for document in tokens.find()] == ["somebody's"]


@pytest.mark.long
async def test_a_server_that_is_not_there_is_told_within_its_bound(own_mongo: MongoServer, database: str) -> None:
    mongo = MongoDeployment(own_mongo.uri, state_database=database)
    one, watchers = store(mongo, database), mongo.watchers()
    await one.create(at(1))
    for breakage in (own_mongo.freeze, own_mongo.kill):
        breakage()
        for asking in (one.advance(at(2)), watchers.load()):
            async with asyncio.timeout(SOCKET_SECONDS - 2):
                with pytest.raises(StoreUnavailable):
                    await asking
    await own_mongo.start()
    assert await found_again(one.read) == at(1)
    assert await one.advance(at(3))
    mongo.close()


async def test_a_position_outlives_a_kill_right_after_it_was_stored(own_mongo: MongoServer, database: str) -> None:
    mongo = MongoDeployment(own_mongo.uri, state_database=database)
    one = store(mongo, database)
    assert await one.create(at(1))
    for moment in range(2, 30):
        assert await one.advance(at(moment))
    own_mongo.kill()
    await own_mongo.start()
    assert await found_again(one.read) == at(29)
    mongo.close()


async def test_an_account_that_may_not_write_is_told_what_to_grant(make_mongo: MakeMongo, database: str) -> None:
    server = await make_mongo(auth=("root", "root"))
    client: Client = pymongo.MongoClient(server.uri)
    client.admin.command("createUser", "reader", pwd="reader", roles=[{"role": "read", "db": database}])
    mongo = MongoDeployment(server.uri.replace("root:root", "reader:reader"), state_database=database)
    assert await store(mongo, database).read() is None
    with pytest.raises(NotAuthorised, match=f"readWrite on {database}"):
        await store(mongo, database).create(at(1))
    mongo.close()
    client.close()


async def test_a_place_with_mongodb_nats_connectors_tokens_is_fit(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    connector_writes(client[database]["tokens"], *range(1, 40))
    await store(mongo, database).check()


async def test_a_place_that_is_somebody_elses_is_refused(mongo: MongoDeployment, client: Client, database: str) -> None:
    client[database]["tokens"].insert_one({"_id": 1, "value": 12.5})
    with pytest.raises(Invalid, match="somebody else's"):
        await store(mongo, database).check()


async def test_a_place_that_is_a_view_is_refused(mongo: MongoDeployment, client: Client, database: str) -> None:
    client[database].create_collection("tokens", viewOn="others", pipeline=[])
    with pytest.raises(Invalid, match="is a view"):
        await store(mongo, database).check()


async def test_a_position_that_was_copied_from_another_collection_is_told_from_one_that_was_written_here(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    original = store(mongo, database)
    await original.begin(at(1))
    await original.advance(at(2))
    found = await original.read()
    assert found is not None
    assert found.native is True
    documents = list(client[database]["tokens"].find())
    client[database].drop_collection("tokens")
    client[database]["tokens"].insert_many(documents)
    copied = await store(mongo, database).read()
    assert copied is not None
    assert copied.native is False
    elsewhere = store(mongo, database, collection="elsewhere")
    assert await elsewhere.create(copied)
    taken_along = await elsewhere.read()
    assert taken_along is not None
    assert taken_along.native is False, "a copy of a copy proves nothing either"
    again = store(mongo, database)
    assert await again.advance(at(3))
    moved_on = await again.read()
    assert moved_on is not None
    assert moved_on.native is True


async def test_a_position_written_after_its_collection_was_dropped_is_native_to_the_new_one(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    one = store(mongo, database)
    await one.begin(at(1))
    await one.advance(at(2))
    client[database].drop_collection("tokens")
    await one.advance(at(3))
    await one.advance(at(4))
    found = await store(mongo, database).read()
    assert found == at(4)
    assert found.native is True
