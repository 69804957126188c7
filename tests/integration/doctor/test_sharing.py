"""What the doctor says of change streams on a real server: how many are open, whose they are, and who could share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pymongo
import pytest

from app.devservers.servers import MongoServer
from app.domain.findings import Finding, Level
from app.domain.watcher import Source, Start, Watcher
from app.mongodb import examiner
from app.mongodb.deployment import MongoDeployment
from tests.conftest import MakeMongo
from tests.live import until

SECRET = "hunter2hunter2"


@contextlib.contextmanager
def foreign_streams(uri: str, count: int) -> Iterator[None]:
    """Change streams of another program."""
    with pymongo.MongoClient[dict[str, Any]](uri) as client, contextlib.ExitStack() as streams:
        for _ in range(count):
            streams.enter_context(client["shop"].watch())
        yield


@contextlib.asynccontextmanager
async def asked(uri: str) -> AsyncIterator[MongoDeployment]:
    deployment = MongoDeployment(uri, state_database="changewire")
    yield deployment
    await deployment.end_feeds()
    deployment.close()


async def look(deployment: MongoDeployment) -> Finding:
    asking = deployment.examiner()
    await asking.reach()
    return await asking.look_at_streams()


async def test_change_streams_are_counted_by_whose_they_are_and_many_are_a_warning(
    own_mongo: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(own_mongo.uri) as deployment:
        found = await look(deployment)
        assert (found.level, found.found) == (Level.OK, "0 of Changewire and 0 of other programs open")
        sources = [deployment.source(Watcher(name, Source("shop", name))) for name in ("a", "b", "c")]

        async def open_and_read(source: Any) -> None:
            await source.prepare()
            await source.open(await source.locate(Start("latest")))
            await source.read()

        await asyncio.gather(*(open_and_read(source) for source in sources))

        async def counted() -> Finding | None:  # a cursor between two reads may be passed over
            seen = await look(deployment)
            return seen if seen.found.startswith("1 of Changewire and 2 of other programs open") else None

        with foreign_streams(own_mongo.uri, 2):
            found = await until(counted)
            assert (found.level, found.found) == (Level.OK, "1 of Changewire and 2 of other programs open")
            monkeypatch.setattr(examiner, "MANY", 3)
            found = await until(counted)
            assert found.level is Level.WARNING
            assert found.found.startswith("1 of Changewire and 2 of other programs open; MongoDB reads its oplog once")
            assert "reads_why" in found.advice
        await asyncio.gather(*(source.close() for source in sources))


async def test_an_account_that_may_not_see_others_counts_its_own_and_says_so(make_mongo: MakeMongo) -> None:
    server = await make_mongo(auth=("root", "root"))
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        client.admin.command("createUser", "poor", pwd=SECRET, roles=[{"role": "read", "db": "shop"}])
    poor = server.uri.replace("root:root", f"poor:{SECRET}")
    with foreign_streams(server.uri, 2), foreign_streams(poor, 1):
        async with asked(poor) as deployment:
            found = await look(deployment)
        async with asked(server.uri) as deployment:
            assert (await look(deployment)).found == "0 of Changewire and 3 of other programs open"
    assert found.level is Level.OK
    assert found.found.startswith("0 of Changewire and 1 of other programs open by this account")
    assert "inprog" in found.found
