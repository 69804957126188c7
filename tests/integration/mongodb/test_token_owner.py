"""A token is taken for the collection that it belongs to, and refused for every other."""

import time
from collections.abc import Callable

import pytest

from app.domain.errors import (
    Invalid,
)
from app.domain.watcher import Start, Watcher
from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import (
    Client,
    events_of,
    fields,
    watcher,
)


async def tokens_of(mongo: MongoDeployment, watched: Watcher, write: Callable[[], object], count: int = 1) -> list[str]:
    return [event["_id"]["_data"] for event in await events_of(mongo, watched, write, count)]


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
