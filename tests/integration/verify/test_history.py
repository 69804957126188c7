"""How `changewire verify` reads the history of a MongoDB that goes away in the middle."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import ConnectionFailure

from app.devservers.servers import MongoServer
from app.domain.tokens import ClusterTime
from app.domain.watcher import Source, Watcher
from app.verify import history
from app.verify.history import WatchedHistory, bound

WATCHER = Watcher("orders", Source("shop", "orders")).with_defaults()
COUNT = history.BATCH + 200


@pytest_asyncio.fixture
async def opened(own_mongo: MongoServer) -> AsyncIterator[WatchedHistory]:
    """The history of `COUNT` inserts, and no more."""
    with MongoClient[dict[str, Any]](own_mongo.uri) as client:
        orders = client["shop"].get_collection("orders")
        begin = client.admin.command("ping")["operationTime"]
        orders.insert_many([{"_id": number} for number in range(COUNT)])
        end = client.admin.command("ping")["operationTime"]
    mongo = AsyncMongoClient[dict[str, Any]](own_mongo.uri, serverSelectionTimeoutMS=500, heartbeatFrequencyMS=500)
    async with mongo as client:
        read = WatchedHistory(
            client, WATCHER, [], end=ClusterTime(end.time, end.inc), wire_version=17, state_database="changewire"
        )
        await read.open(bound(ClusterTime(begin.time, begin.inc)))
        yield read
        await read.close()


async def test_every_change_comes_once_and_in_order_though_the_server_is_gone_for_a_while(
    own_mongo: MongoServer, opened: WatchedHistory
) -> None:
    found, restarts = [], list[asyncio.Task[None]]()

    async def start_again() -> None:
        await asyncio.sleep(1.2)  # the scenario itself: longer than pymongo tries
        await own_mongo.start()

    while (event := await opened.peek()) is not None:
        opened.take()
        found.append(event.body["documentKey"]["_id"])
        if len(found) in (3, COUNT - 1):
            await asyncio.gather(*restarts)
            own_mongo.kill()
            restarts.append(asyncio.create_task(start_again(), name="start again"))
    await asyncio.gather(*restarts)
    assert found == list(range(COUNT))


async def test_a_server_that_stays_away_ends_the_reading(
    own_mongo: MongoServer, opened: WatchedHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "GONE_SECONDS", 1.0)
    own_mongo.kill()

    async def read() -> None:
        while await opened.peek() is not None:
            opened.take()

    with pytest.raises(ConnectionFailure):
        await read()
