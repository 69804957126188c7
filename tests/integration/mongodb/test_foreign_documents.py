"""Documents that Changewire did not make, where it keeps positions and its registry: none is written or deleted."""

import re
from datetime import datetime
from typing import Any

import bson
import pymongo
import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import Conflict, Invalid, ScopeMismatch
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Watcher
from app.mongodb.checkpoint_store import MongoCheckpointStore
from app.mongodb.deployment import MongoDeployment
from app.ports import CheckpointStore
from tests.fakes import BEGIN, event_token
from tests.integration.mongodb.bench import Client
from tests.live import Live

TOKEN = event_token(7)
OURS = {"value": TOKEN, "clusterTime": bson.Timestamp(BEGIN + 7, 1), "sequence": 3, "streamCreated": "2026", "epoch": 1}
FOREIGN: list[dict[str, Any]] = [
    {"_id": 1, "value": "a text"},
    {"_id": 2, "value": TOKEN},  # mongodb-nats-connector lets the driver make the _id
    {"value": TOKEN, "note": "a copy"},
    {"value": TOKEN.removeprefix("82")},
    {"value": f"{TOKEN}\n"},
    {"value": f"token {TOKEN}"},
    {"value": TOKEN, "epoch": 3},
    OURS | {"epoch": "third"},
    OURS | {"value": "a text"},
    {"value": [TOKEN]},
    {"name": "no value at all"},
    {"_id": bson.ObjectId("f" * 24), "value": "the newest"},
]
"""Documents of a business collection, from far to near: none was made by Changewire or by mongodb-nats-connector."""


def store(mongo: MongoDeployment, database: str, **place: Any) -> CheckpointStore:
    checkpoint = CheckpointPlace(database, "business", **place)
    return mongo.checkpoints(Watcher("w", Source("shop", "orders"), checkpoint=checkpoint))


def at(moment: int, epoch: int | None = 0, scope: str | None = "rs0/shop.orders") -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=epoch, scope=scope, watcher="w", updated_at=float(BEGIN))


def filled(client: Client, database: str, **options: Any) -> tuple[Any, list[Any]]:
    client[database].create_collection("business", **options)
    business = client[database].business
    business.insert_many([dict(each) for each in FOREIGN])
    return business, list(business.find().sort("$natural", 1))


async def test_no_document_of_somebody_elses_is_read_written_or_deleted(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    business, before = filled(client, database)
    foreign = {"_id": {"$in": [each["_id"] for each in before]}}
    one = store(mongo, database)
    assert await one.read() is None
    await one.keep_unsettled((), 5)
    await one.delete()
    assert list(business.find()) == before
    assert await one.begin(at(9, 4))
    assert await one.advance(at(10, 4))
    await one.keep_unsettled((), 5)
    assert (await one.read()) == at(10, 4)
    assert list(business.find(foreign)) == before
    await one.delete()
    assert list(business.find()) == before
    assert await one.create(at(1))
    assert await one.begin(at(2, 7))
    await one.delete()
    assert list(business.find()) == before


async def test_a_capped_collection_with_documents_of_others_is_never_inserted_into(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    business, before = filled(client, database, capped=True, size=4096)  # each position would push some of them out
    one = store(mongo, database)
    for write in (one.create(at(1)), one.advance(at(2)), one.begin(at(3, 1)), one.keep_unsettled((), 1)):
        with pytest.raises(ScopeMismatch, match=r"business.*checkpoint\.collection"):
            await write
    await one.delete()
    assert list(business.find().sort("$natural", 1)) == before


async def test_a_document_in_the_place_of_the_first_position_is_told_and_stays(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    taken = {"_id": bson.ObjectId("0" * 24), "value": "a text"}
    client[database].business.insert_one(dict(taken))
    one = store(mongo, database)
    for write in (one.create(at(1)), one.advance(at(2)), one.begin(at(3, 1))):
        with pytest.raises(ScopeMismatch, match=r"business.*checkpoint\.collection"):
            await write
    assert list(client[database].business.find()) == [taken]


@pytest.mark.parametrize("options", [{}, {"capped": True, "size": 65536}], ids=["plain", "capped"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda each: re.sub(r"\W+", "_", str(each))[:50])
async def test_a_place_is_refused_for_one_document_of_somebody_elses_among_many_tokens(
    mongo: MongoDeployment, client: Client, database: str, foreign: dict[str, Any], options: dict[str, Any]
) -> None:
    client[database].create_collection("business", **options)
    business = client[database].business
    business.insert_many([{"value": event_token(moment)} for moment in range(20)])
    business.insert_one(dict(foreign))
    business.insert_many([{"value": event_token(moment)} for moment in range(20)])
    with pytest.raises(Invalid, match=r"checkpoint\.collection.*name another collection"):
        await store(mongo, database).check()


async def test_positions_of_mongodb_nats_connector_and_of_earlier_runs_are_a_fit_place_and_are_deleted(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    business = client[database].business
    business.insert_many([{"value": event_token(moment)} for moment in range(40)])
    one = store(mongo, database)
    await one.check()
    await one.keep_unsettled((), 0)  # on a token of mongodb-nats-connector's
    await one.check()
    assert await one.read() == Checkpoint(event_token(39))
    assert await one.advance(at(50))
    business.insert_one(OURS | {"addedLater": 1})  # a later version's, with a field that is not known here
    await one.check()
    await one.delete()
    assert list(business.find()) == []


async def test_the_position_of_another_watcher_or_another_registry_is_not_deleted(
    mongo: MongoDeployment, client: Client, database: str, mongo_uri: str
) -> None:
    other = MongoDeployment(mongo_uri, state_database="elsewhere")
    assert await store(other, database).create(at(5))
    one = store(mongo, database)
    await one.delete()
    assert await one.read() == at(5)
    assert await one.advance(at(6))  # the position is this registry's from now on
    await store(other, database).delete()
    assert await one.read() == at(6)
    assert await one.begin(at(6, 1, scope="rs0/shop.items"))
    await one.delete()
    assert await one.read() == at(6, 1, scope="rs0/shop.items")
    assert await one.begin(at(6, 2))
    await one.delete()
    assert await one.read() is None
    other.close()


async def test_an_instances_collection_of_somebody_elses_in_the_state_database_stays_as_it_is(
    mongo_uri: str, client: Client, database: str
) -> None:
    instances = client[database].instances
    theirs: list[dict[str, Any]] = [
        {"_id": "web-1", "host": "a"},
        {"_id": "web-2", "applied": 3, "seen": datetime(2020, 1, 1), "host": "b"},
        {"_id": "web-3", "applied": "never", "seen": None},
        {"_id": bson.ObjectId(), "applied": 3, "seen": datetime(2020, 1, 1)},
    ]
    instances.insert_many([*theirs, {"_id": "0" * 12, "applied": 3, "seen": datetime(2020, 1, 1)}])
    deployment = MongoDeployment(mongo_uri, state_database=database)
    await deployment.watchers().attend("a" * 12, 0)
    assert list(instances.find({"_id": {"$ne": "a" * 12}})) == theirs  # what a dead instance left is forgotten
    deployment.close()


async def test_over_http_a_business_collection_survives_add_move_and_removal(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add(checkpoint={"database": live.database, "collection": "prices"})
        await live.pause()
        prices = live.mongo[live.database]["prices"]
        prices.insert_many([dict(each) for each in FOREIGN])  # shared with others only later
        before = list(prices.find({"watcher": {"$exists": False}}))
        token = (await live.get("/watchers/orders/token"))["token"]
        await live.call("PUT", "/watchers/orders/token", 200, json={"token": token})
        await live.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
        assert list(prices.find()) == before
        place = {"database": live.database, "collection": "prices"}
        said = await live.refused(422, "POST", "/watchers", json=live.definition(checkpoint=place))
        assert "checkpoint.collection" in said
        assert list(prices.find()) == before


async def test_a_position_is_kept_only_where_the_settings_let_it(mongo_uri: str, nats_url: str, unique: str) -> None:
    allowed = f"db_{unique}.*"
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_NAMESPACES=allowed) as live:
        for place in ({"database": f"crm_{unique}"}, {"database": f"crm_{unique}", "collection": "customers"}):
            answer = await live.call("POST", "/watchers", 422, json=live.definition(checkpoint=place))
            assert {each["field"] for each in answer.json()["errors"]} == {"checkpoint.database"}
        await live.add(checkpoint={"database": live.database, "collection": "positions"})
        await live.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
        await live.add()  # in resume-tokens, which is for nothing else
        await live.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
        await live.restart(CHANGEWIRE_NAMESPACES=f"db_{unique}.*,crm_{unique}.*")
        await live.add(checkpoint={"database": f"crm_{unique}"})
        await live.restart(CHANGEWIRE_NAMESPACES=allowed)
        assert "checkpoint.database" in (await live.reaches("FAILED"))["status"]["reason"]
        before = live.checkpoint(database=f"crm_{unique}")
        await live.refused(409, "PUT", "/watchers/orders/token", json={"at": "latest"})
        assert "keep" in await live.refused(409, "DELETE", "/watchers/orders?checkpoint=delete")
        assert live.checkpoint(database=f"crm_{unique}") == before
        await live.call("DELETE", "/watchers/orders", 204)


async def test_before_mongodb_5_a_capped_collection_goes_only_where_all_in_it_is_ours(
    mongo: MongoDeployment, client: Client, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise pymongo.errors.OperationFailure("cannot remove from a capped collection", 20)

    business = client[database].create_collection("business", capped=True, size=65536)
    place = CheckpointPlace(database, "business")
    refusing: Any = _RefusingDatabase(mongo.reach.client[database], refused)
    one = MongoCheckpointStore(refusing, place, namespace="shop.orders", registry="changewire")
    assert await one.create(at(1))
    business.insert_one({"name": "somebody's"})
    with pytest.raises(Conflict, match="business"):
        await one.delete()
    assert business.count_documents({}) == 2


class _RefusingDatabase:
    """A database whose collections do not delete."""

    def __init__(self, database: Any, refused: Any) -> None:
        self._database = database
        self._refused = refused

    def get_collection(self, *arguments: Any, **options: Any) -> Any:
        return _Refusing(self._database.get_collection(*arguments, **options), self._refused)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class _Refusing:
    def __init__(self, collection: Any, refused: Any) -> None:
        self._collection = collection
        self.delete_many = refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)
