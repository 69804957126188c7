"""What the probes of a real mongod say, also when it is frozen, killed or not a replica set."""

import asyncio
import time

import pytest

from app.devservers.servers import MongoServer
from app.domain.errors import (
    SourceUnavailable,
    Unavailable,
)
from app.domain.watcher import Start
from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import (
    SOCKET_SECONDS,
    MakeMongo,
    watcher,
)


@pytest.mark.parametrize(("query", "said"), [("", "needs a replica set"), ("?replicaSet=rs0", "no member of")])
async def test_a_standalone_server_is_down_with_the_reason(make_mongo: MakeMongo, query: str, said: str) -> None:
    standalone = MongoDeployment((await make_mongo(replica_set=None)).uri + query, state_database="changewire")
    with pytest.raises(SourceUnavailable, match=said) as down:
        await standalone.ping()
    assert "--replSet" in str(down.value)
    standalone.close()


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
