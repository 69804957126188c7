"""What the probes of a real mongod say, also when it is frozen, killed or not a replica set."""

import asyncio
import time
from typing import Any

import pymongo
import pytest

from app.devservers.servers import MongoServer
from app.domain.errors import (
    NotAuthorised,
    SourceUnavailable,
    Unavailable,
)
from app.domain.watcher import Start
from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import SOCKET_SECONDS, MakeMongo, found_again, watcher


async def reason(uri: str) -> str:
    """Why the deployment of this connection string is down."""
    mongo = MongoDeployment(uri, state_database="changewire")
    with pytest.raises(SourceUnavailable) as down:
        await mongo.ping()
    mongo.close()
    return str(down.value)


async def test_a_server_that_is_not_what_the_uri_asks_for_is_down_with_what_it_is_and_what_to_do(
    make_mongo: MakeMongo, mongo_server: MongoServer
) -> None:
    standalone = f"mongodb://127.0.0.1:{(await make_mongo(replica_set=None)).port}/?"
    for query in ("", "directConnection=true"):
        said = await reason(standalone + query)
        assert "is a standalone server, and change streams need a replica set" in said
        assert "start it with --replSet rs0 and run rs.initiate()" in said
    for query in ("replicaSet=prod", "directConnection=true&replicaSet=prod"):
        said = await reason(standalone + query)
        assert "is a standalone server" in said
        assert "MONGO_URI asks for the replica set prod" in said
        assert "start it with --replSet prod" in said
    member = f"mongodb://127.0.0.1:{mongo_server.port}/?"
    for query in ("replicaSet=prod", "directConnection=true&replicaSet=prod"):
        said = await reason(member + query)
        assert f"127.0.0.1:{mongo_server.port} is a member of the replica set rs0" in said
        assert "write replicaSet=rs0 in MONGO_URI" in said


async def test_a_replica_set_that_is_not_initiated_is_down_with_what_to_do(make_mongo: MakeMongo) -> None:
    server = await make_mongo(replica_set=None)
    await server.stop()
    server.args += ["--replSet", "rs0"]
    server._until_ready = lambda deadline: server._poll(server._listens, deadline)  # type: ignore[method-assign]
    await server.start()
    for query in ("", "?replicaSet=rs0", "?directConnection=true"):
        said = await reason(f"mongodb://127.0.0.1:{server.port}/{query}")
        assert "is not initiated" in said
        assert "run rs.initiate()" in said


async def test_databases_and_collections_are_named_as_far_as_the_account_may_see_them(make_mongo: MakeMongo) -> None:
    server = await make_mongo(auth=("root", "toor"))
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        for number in range(3):
            client["shop"][f"c{number}"].insert_one({})
        client["shop"].create_collection("seen", viewOn="c0", pipeline=[])
        client["secret"]["plans"].insert_one({})
        client["mixed"]["mine"].insert_one({})
        client["mixed"]["theirs"].insert_one({})
        one = {"resource": {"db": "mixed", "collection": "mine"}, "actions": ["find", "changeStream"]}
        client.admin.command("createRole", "one", privileges=[one], roles=[])
        client.admin.command("createUser", "some", pwd="some", roles=["one", {"role": "read", "db": "shop"}])
    uri = server.uri.replace("root:toor", "some:some")
    mongo = MongoDeployment(uri, state_database="changewire")
    assert sorted(await mongo.database_names()) == ["mixed", "shop"]
    assert (sorted((await mongo.collection_names("shop", 10))[0])) == ["c0", "c1", "c2"]
    names, more = await mongo.collection_names("shop", 2)
    assert (len(names), more) == (2, True)
    assert await mongo.collection_names("mixed", 10) == (["mine"], False)
    with pytest.raises(NotAuthorised, match="secret"):
        await mongo.collection_names("secret", 10)
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        assert client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"] == 0, "a cursor was left open"
    await asyncio.to_thread(server.kill)
    with pytest.raises(SourceUnavailable):
        await mongo.database_names()
    mongo.close()


@pytest.mark.long
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
    await found_again(mongo.ping)
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


async def test_an_entry_that_goes_while_it_is_read_is_no_refusal(make_mongo: MakeMongo) -> None:
    """mongod gives this error (CappedPositionLost) where it cuts the oplog at that moment."""
    server = await make_mongo(args=["--setParameter", "enableTestCommands=1"])
    mongo = MongoDeployment(server.uri, state_database="changewire")
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        data = {"failCommands": ["find"], "namespace": "local.oplog.rs", "errorCode": 136, "appName": "changewire"}
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 3}, "data": data})
        oplog = await mongo.read_oplog()
        assert oplog is not None
        assert oplog.first > 0
        client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        mongo.close()
        mongo = MongoDeployment(server.uri, state_database="changewire")  # which remembers nothing
        with pytest.raises(SourceUnavailable, match="faster than it can be read"):
            await mongo.read_oplog()
    mongo.close()
