"""A deployment and a blocking client on the session's mongod, and benches: a collection to write to and to watch."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pymongo
import pytest
import pytest_asyncio

from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import Bench, Client, MakeBench


@pytest_asyncio.fixture
async def mongo(mongo_uri: str) -> AsyncIterator[MongoDeployment]:
    deployment = MongoDeployment(mongo_uri, state_database="changewire")
    yield deployment
    deployment.close()


@pytest.fixture
def client(mongo_uri: str, database: str) -> Iterator[Client]:
    """Drops the test's database afterwards."""
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        yield client
        client.drop_database(database)


@pytest_asyncio.fixture
async def make_bench(database: str) -> AsyncIterator[MakeBench]:
    """`make_bench(uri, **options of Bench)`, closed after the test."""
    async with AsyncExitStack() as stack:

        def make(uri: str, **options: Any) -> Bench:
            bench = Bench(uri, database, **options)
            stack.callback(bench.close)
            return bench

        yield make


@pytest.fixture
def bench(make_bench: MakeBench, mongo_uri: str) -> Iterator[Bench]:
    bench = make_bench(mongo_uri, batch_size=2)
    yield bench
    bench.client.drop_database(bench.database.name)
