"""What a real mongod is asked before a watcher is added, and what the request is answered."""

from typing import Any

import bson
import pymongo
import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import (
    Invalid,
    SourceRefused,
    Unavailable,
)
from app.domain.tokens import cluster_time
from app.domain.watcher import Source, Start, Watcher
from app.mongodb.deployment import MongoDeployment
from app.mongodb.pipeline import NEEDED
from tests.integration.mongodb.bench import Client, Event, MakeMongo, events_of, fields, watcher


async def test_a_check_changes_nothing(mongo: MongoDeployment, client: Client, database: str) -> None:
    await mongo.check_source(watcher(database, {"$match": {"operationType": "insert"}}, pre_and_post_images=True))
    assert database not in client.list_database_names()


@pytest.mark.parametrize(
    "stages",
    [
        ({"$nonsense": 1},),
        ({"$match": {"$expr": {"$nonsense": 1}}},),
        ({"$out": "elsewhere"},),
        ({"$project": {"_id": 0}},),
        ({"$match": {"operationType": "insert"}}, {"$unset": "_id"}),
        ({"$set": {"_id": "mine"}},),
        ({"$replaceWith": "$fullDocument"},),
        ({"$project": {"fullDocument": 1}},),
        ({"$project": {"operationType": 1, "fullDocument.name": 1}},),
        ({"$project": {"clusterTime": 0}},),
        ({"$project": {"ns": {"coll": 0}}},),
        ({"$project": {"documentKey": "$fullDocument"}},),
        ({"$unset": ["wallTime", "ns"]},),
        ({"$unset": "documentKey._id"},),
        ({"$addFields": {"operationType": {"$concat": ["my ", "$operationType"]}}},),
        ({"$set": {"ns.coll": "another"}},),
        ({"$replaceRoot": {"newRoot": {"_id": "$_id", "operationType": "$operationType"}}},),
        ({"$replaceWith": {"$mergeObjects": ["$$ROOT", {"clusterTime": None}]}},),
        # Nothing of what is made up gets past the filter, or nothing made up can be run through the stages.
        ({"$match": {"fullDocument.status": "paid"}}, {"$project": {"operationType": 0}}),
        ({"$match": {"fullDocument.status": "paid"}}, {"$replaceWith": {"_id": "$_id"}}),
        ({"$set": {"n": {"$toInt": "$fullDocument._id"}}}, {"$unset": "operationType"}),
        ({"$match": {"fullDocument._id": {"$oid": "short"}}},),
        ({"$match": {"fullDocument.at": {"$date": "yesterday"}}},),
    ],
)
async def test_a_pipeline_that_cannot_work_is_refused_on_its_field(
    mongo: MongoDeployment, database: str, stages: tuple[dict[str, Any], ...]
) -> None:
    with pytest.raises(Invalid) as refused:
        await mongo.check_source(watcher(database, *stages))
    assert fields(refused) == ["source.pipeline"]


DOCUMENT: dict[str, Any] = {"_id": 1, "owner": bson.ObjectId("6" * 24), "name": "abc", "status": "paid", "secret": "s"}


@pytest.mark.parametrize(
    ("stages", "operations"),
    [
        ((), ["insert", "delete"]),
        (({"$match": {"operationType": "nothing of the kind"}},), []),
        (
            (
                {
                    "$match": {
                        "fullDocument.owner": {"$oid": "6" * 24},
                        "fullDocument.name": {"$regex": "^a", "$ne": "ab"},
                    }
                },
            ),
            ["insert"],
        ),
        (({"$project": dict.fromkeys((*NEEDED, "fullDocument.name"), 1)},), ["insert", "delete"]),
        (
            (
                {
                    "$project": {
                        "operationType": 1,
                        "clusterTime": "$clusterTime",
                        "ns": {"db": 1, "coll": 1},
                        "documentKey": 1,
                    }
                },
            ),
            ["insert", "delete"],
        ),
        (({"$project": {"fullDocument": {"secret": 0}}},), ["insert", "delete"]),
        (
            (
                {"$match": {"fullDocument.status": "paid"}},
                {"$replaceWith": {"$mergeObjects": ["$$ROOT", {"n": 1}]}},
            ),
            ["insert"],
        ),
        (({"$replaceRoot": {"newRoot": "$$ROOT"}},), ["insert", "delete"]),
        (({"$set": {"n": {"$toInt": "$fullDocument._id"}}},), ["insert", "delete"]),
        (({"$unset": ["fullDocument.secret", "updateDescription"]},), ["insert", "delete"]),
        (({"$redact": {"$cond": [{"$eq": ["$level", 5]}, "$$PRUNE", "$$DESCEND"]}},), ["insert", "delete"]),
    ],
)
async def test_a_pipeline_that_may_work_is_taken_and_its_events_have_all_that_is_needed(
    mongo: MongoDeployment, client: Client, database: str, stages: tuple[dict[str, Any], ...], operations: list[str]
) -> None:
    piped, plain = watcher(database, *stages), watcher(database)
    await mongo.check_source(piped)

    def write() -> None:
        client[database].orders.insert_one(dict(DOCUMENT))
        client[database].orders.delete_one({"_id": 1})
        client[database].elsewhere.insert_one({})  # moves the position past a change that a pipeline drops

    whole = {event["_id"]["_data"]: event for event in await events_of(mongo, plain, write, 2)}
    source = mongo.source(piped)
    await source.open(await source.locate(Start("timestamp", float(min(map(seconds_of, whole))))))
    came: list[Event] = []
    position = ""
    while position < max(whole):
        batch = await source.read()
        came, position = [*came, *map(bson.decode, batch.events)], batch.position
    await source.close()
    assert [event["operationType"] for event in came] == operations
    for event in came:
        assert {field: event.get(field) for field in NEEDED} == {
            field: whole[event["_id"]["_data"]].get(field) for field in NEEDED
        }


def seconds_of(token: str) -> int:
    return cluster_time(token).seconds


async def test_a_pipeline_is_read_where_the_account_may_not_try_it(make_mongo: MakeMongo, database: str) -> None:
    """As on MongoDB 5.0, where nothing can be tried: what the pipeline says is all there is."""
    server = await make_mongo(auth=("root", "root"))
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        resource = {"db": database, "collection": "orders"}
        privileges = [{"resource": resource, "actions": ["find", "changeStream"]}]
        client.admin.command("createRole", "least", privileges=privileges, roles=[])
        client.admin.command("createUser", "poor", pwd="poor", roles=["least"])
    poor = MongoDeployment(server.uri.replace("root:root", "poor:poor"), state_database="changewire")
    await poor.check_source(watcher(database, full_document_before_change="required"))
    with pytest.raises(Invalid) as refused:
        await poor.check_source(watcher(database, {"$project": {"operationType": 0}}))
    assert fields(refused) == ["source.pipeline"]
    poor.close()


@pytest.mark.parametrize("option", ["full_document", "full_document_before_change"])
async def test_required_images_that_nobody_keeps_are_refused_with_the_command(
    mongo: MongoDeployment, client: Client, database: str, option: str
) -> None:
    wanted = watcher(database, **{option: "required"})
    with pytest.raises(Invalid, match="does not exist yet") as refused:
        await mongo.check_source(wanted)
    assert fields(refused) == [f"source.{option}"]
    await mongo.check_source(watcher(database, pre_and_post_images=True, **{option: "required"}))
    client[database].create_collection("orders")
    advice = 'db.runCommand({collMod: "orders", changeStreamPreAndPostImages: {enabled: true}})'
    with pytest.raises(Invalid) as refused:
        await mongo.check_source(wanted)
    assert advice in str(refused.value)
    await mongo.check_source(watcher(database, **{option: "whenAvailable"}))
    client[database].command("collMod", "orders", changeStreamPreAndPostImages={"enabled": True})
    await mongo.check_source(wanted)


async def test_a_database_that_differs_in_case_alone_is_refused_with_the_existing_name(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    client[database].orders.insert_one({})
    with pytest.raises(Invalid, match=f"there is a database {database}:") as refused:
        await mongo.check_source(watcher(database.upper()))
    assert fields(refused) == ["source.database"]
    kept = Watcher("w", Source(f"{database}_2", "orders"), checkpoint=CheckpointPlace(database.upper(), "orders"))
    with pytest.raises(Invalid, match=f"there is a database {database}:") as refused:
        await mongo.check_source(kept)
    assert fields(refused) == ["checkpoint.database"]
    await mongo.check_source(watcher(database))
    # One that came into being between the check and the first opening is not waited for.
    with pytest.raises(SourceRefused, match=database):
        await mongo.source(watcher(database.upper(), pre_and_post_images=True)).prepare()


async def test_a_view_a_system_database_and_a_standalone_are_refused(
    mongo: MongoDeployment, client: Client, database: str, make_mongo: MakeMongo
) -> None:
    client[database].create_collection("seen", viewOn="orders", pipeline=[])
    with pytest.raises(Invalid, match="view"):
        await mongo.check_source(watcher(database, collection="seen"))
    for system in ("admin", "local", "config"):
        with pytest.raises(Invalid, match="system database"):
            await mongo.check_source(watcher(system))
    standalone = MongoDeployment((await make_mongo(replica_set=None)).uri, state_database="changewire")
    with pytest.raises(Invalid, match=r"rs\.initiate"):
        await standalone.check_source(watcher(database))
    standalone.close()


async def test_an_account_that_may_not_is_the_users_to_change_and_a_wrong_password_is_not(
    make_mongo: MakeMongo, database: str
) -> None:
    server = await make_mongo(auth=("root", "root"))
    client: Client = pymongo.MongoClient(server.uri)
    client.admin.command("createUser", "poor", pwd="poor", roles=[{"role": "read", "db": database}])
    poor = MongoDeployment(server.uri.replace("root:root", "poor:poor"), state_database="changewire")
    await poor.check_source(watcher(database, {"$match": {"operationType": "insert"}}))
    token = await poor.source(watcher(database)).locate(Start("latest"))
    await poor.check_token(watcher(database), token)
    with pytest.raises(Invalid, match="grant"):
        await poor.check_source(watcher("elsewhere"))
    assert await poor.read_oplog() is None
    poor.close()
    wrong = MongoDeployment(server.uri.replace("root:root", "poor:hunter2"), state_database="changewire")
    with pytest.raises(Unavailable) as refused:
        await wrong.check_source(watcher(database))
    assert "hunter2" not in str(refused.value)
    wrong.close()
    client.close()
