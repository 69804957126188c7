"""What a real mongod is asked before a watcher is taken on or a token is set, and by the probes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio

from app.devservers.servers import MongoServer
from app.domain.errors import Invalid, SourceRefused, SourceUnavailable, Unavailable
from app.domain.watcher import CheckpointPlace, Source, Start, Watcher
from app.mongodb.client import OPTIONS, MongoDeployment
from app.mongodb.pipeline import NEEDED
from app.mongodb.trial import parse_pipeline

SOCKET_SECONDS: float = OPTIONS["socketTimeoutMS"] / 1000
"""The driver's own patience with a connection: what takes less is noticed in another way."""

MakeMongo = Callable[..., Awaitable[MongoServer]]
Client = pymongo.MongoClient[dict[str, Any]]


@pytest_asyncio.fixture
async def mongo(mongo_uri: str) -> AsyncIterator[MongoDeployment]:
    deployment = MongoDeployment(mongo_uri, state_database="changewire")
    yield deployment
    deployment.close()


@pytest.fixture(autouse=True)
def client(mongo_uri: str, database: str) -> Iterator[Client]:
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client
        client.drop_database(database)


def watcher(database: str, *stages: dict[str, Any], collection: str = "orders", **options: Any) -> Watcher:
    return Watcher("w", Source(database, collection, pipeline=stages, **options))


def fields(error: pytest.ExceptionInfo[Invalid]) -> list[str]:
    return [problem.field for problem in error.value.problems]


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


@pytest.mark.parametrize(
    "stages",
    [
        (),
        ({"$match": {"operationType": "nothing of the kind"}},),
        ({"$match": {"fullDocument.owner": {"$oid": "6" * 24}, "fullDocument.name": {"$regex": "^a", "$ne": "ab"}}},),
        ({"$project": dict.fromkeys((*NEEDED, "fullDocument.name"), 1)},),
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
        ({"$project": {"fullDocument": {"secret": 0}}},),
        ({"$match": {"fullDocument.status": "paid"}}, {"$replaceWith": {"$mergeObjects": ["$$ROOT", {"n": 1}]}}),
        ({"$replaceRoot": {"newRoot": "$$ROOT"}},),
        ({"$set": {"n": {"$toInt": "$fullDocument._id"}}},),
        ({"$unset": ["fullDocument.secret", "updateDescription"]},),
        ({"$redact": {"$cond": [{"$eq": ["$level", 5]}, "$$PRUNE", "$$DESCEND"]}},),
    ],
)
async def test_a_pipeline_that_may_work_is_taken(
    mongo: MongoDeployment, database: str, stages: tuple[dict[str, Any], ...]
) -> None:
    await mongo.check_source(watcher(database, *stages))


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


@pytest.mark.parametrize(("query", "said"), [("", "needs a replica set"), ("?replicaSet=rs0", "no member of")])
async def test_a_standalone_server_is_down_with_the_reason(make_mongo: MakeMongo, query: str, said: str) -> None:
    standalone = MongoDeployment((await make_mongo(replica_set=None)).uri + query, state_database="changewire")
    with pytest.raises(SourceUnavailable, match=said) as down:
        await standalone.ping()
    assert "--replSet" in str(down.value)
    standalone.close()


def test_extended_json_becomes_what_it_stands_for_and_regex_keeps_its_neighbours() -> None:
    oid = "0123456789abcdef01234567"
    (stage,) = parse_pipeline(
        [{"$match": {"o": {"$oid": oid}, "d": {"$date": "2026-01-01T00:00:00Z"}, "s": {"$regex": "^a", "$ne": "ab"}}}]
    )
    assert str(stage["$match"]["o"]) == oid
    assert stage["$match"]["d"].year == 2026
    assert stage["$match"]["s"] == {"$regex": "^a", "$ne": "ab"}


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


async def test_a_server_that_is_not_there_is_unavailable_long_before_the_socket_timeout(
    own_mongo: MongoServer, database: str
) -> None:
    mongo = MongoDeployment(own_mongo.uri, state_database="changewire")
    assert abs(await mongo.ping() - time.time()) < 15
    token = await mongo.source(watcher(database)).locate(Start("latest"))
    own_mongo.freeze()
    async with asyncio.timeout(SOCKET_SECONDS / 2):
        with pytest.raises(SourceUnavailable):
            await mongo.ping()
    own_mongo.thaw()
    await mongo.ping()
    own_mongo.kill()
    async with asyncio.timeout(SOCKET_SECONDS / 2):
        with pytest.raises(SourceUnavailable):
            await mongo.ping()
    with pytest.raises(Unavailable):
        await mongo.check_source(watcher(database))
    with pytest.raises(Unavailable):
        await mongo.check_token(watcher(database), token)
    with pytest.raises(SourceUnavailable):
        await mongo.read_oplog()
    mongo.close()


async def tokens_of(mongo: MongoDeployment, watched: Watcher, write: Callable[[], object], count: int = 1) -> list[str]:
    source = mongo.source(watched)
    await source.prepare()
    await source.open(await source.locate(Start("latest")))
    write()
    found: list[str] = []
    while len(found) < count:
        found += [bson.decode(event)["_id"]["_data"] for event in (await source.read()).events]
    await source.close()
    return found


async def test_a_token_of_another_collection_is_refused_and_its_own_is_taken(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    orders, users = watcher(database), watcher(database, collection="users")
    (own,) = await tokens_of(mongo, orders, lambda: client[database].orders.insert_one({}))
    (foreign,) = await tokens_of(mongo, users, lambda: client[database].users.insert_one({}))
    await mongo.check_token(orders, own)
    await mongo.check_token(users, foreign)
    with pytest.raises(Invalid, match=f"{database}.users"):
        await mongo.check_token(orders, foreign)
    other = watcher(f"{database}_2")
    (far,) = await tokens_of(mongo, other, lambda: client[f"{database}_2"].orders.insert_one({}))
    client.drop_database(f"{database}_2")
    with pytest.raises(Invalid, match=f"{database}_2.orders"):
        await mongo.check_token(orders, far)


async def test_a_transactions_token_is_told_from_another_collections(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    both = client[database]
    both.orders.insert_one({})
    both.users.insert_one({})

    def write() -> None:
        with client.start_session() as session, session.start_transaction():
            both.orders.insert_one({}, session=session)
            both.users.insert_one({}, session=session)

    orders, users = watcher(database), watcher(database, collection="users")
    (foreign,) = await tokens_of(mongo, users, write)
    both.users.drop()  # so that only the oplog knows whose it is
    await mongo.check_token(users, foreign)
    with pytest.raises(Invalid, match="users"):
        await mongo.check_token(orders, foreign)


async def test_tokens_of_an_earlier_incarnation_and_of_drop_and_rename_are_taken(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    orders = client[database].orders

    def write() -> None:
        orders.insert_one({})
        orders.drop()
        orders.insert_one({})
        orders.rename("archive")
        orders.insert_one({})

    # insert, drop, invalidate, insert, rename, invalidate, insert
    for token in await tokens_of(mongo, watcher(database), write, 7):
        await mongo.check_token(watcher(database), token)


async def test_a_position_without_events_is_taken(mongo: MongoDeployment, database: str) -> None:
    await mongo.check_token(watcher(database), await mongo.source(watcher(database)).locate(Start("latest")))


async def test_a_token_of_the_future_and_a_cut_one_are_refused(
    mongo: MongoDeployment, client: Client, database: str
) -> None:
    (own,) = await tokens_of(mongo, watcher(database), lambda: client[database].orders.insert_one({}))
    future = f"82{int(time.time()) + 86_400:08X}{own[10:]}"
    for bad in (future, own[:20], own[:40], "", "82", "nonsense"):
        with pytest.raises(Invalid) as refused:
            await mongo.check_token(watcher(database), bad)
        assert fields(refused) == ["token"]


class Counter:
    """An observer of commands alone."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.succeeded: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []

    def command_started(self, database: str, command: str) -> None:
        self.started.append((database, command))

    def command_succeeded(self, database: str, command: str, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.succeeded.append((database, command))

    def command_failed(self, database: str, command: str, seconds: float) -> None:
        self.failed.append((database, command))


async def test_commands_are_counted_and_probes_are_not(mongo_uri: str, database: str) -> None:
    counter = Counter()
    mongo = MongoDeployment(mongo_uri, state_database="changewire", observer=counter)  # type: ignore[arg-type]
    await mongo.ping()
    assert counter.started == []
    source = mongo.source(watcher(database))
    await source.open(await source.locate(Start("latest")))
    await source.read()
    await source.read()
    await source.close()
    with pytest.raises(Invalid):
        await mongo.check_source(watcher(database, {"$nonsense": 1}))
    assert (database, "getMore") in counter.succeeded
    assert (database, "killCursors") in counter.succeeded
    assert (database, "aggregate") in counter.failed
    assert len(counter.started) == len(counter.succeeded) + len(counter.failed)
    mongo.close()


async def test_a_bad_uri_is_named_without_its_password() -> None:
    with pytest.raises(Invalid) as refused:
        MongoDeployment("mongodb://me:hunter2@:x:99999999", state_database="changewire")
    assert fields(refused) == ["MONGO_URI"]
    assert "hunter2" not in str(refused.value)
    with pytest.raises(Invalid, match="percent-encoded") as refused:
        MongoDeployment("mongodb://me:hunter2@home@host", state_database="changewire")
    assert "hunter2" not in str(refused.value)


async def test_the_uris_own_options_win(mongo_uri: str) -> None:
    mongo = MongoDeployment(f"{mongo_uri}&maxPoolSize=7&SOCKETTIMEOUTMS=1234", state_database="changewire")
    options = mongo._client.delegate.options
    assert options.pool_options.max_pool_size == 7
    assert options.pool_options.socket_timeout == 1.234
    assert options.pool_options.connect_timeout == 2.0
    mongo.close()
