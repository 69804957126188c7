"""The positions of many watchers in one collection: each is told what became of its own, whatever the others meet."""

import asyncio
import threading

import pytest

from app.domain.errors import ScopeMismatch
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Watcher
from app.mongodb.deployment import MongoDeployment
from app.ports import CheckpointStore
from tests.fakes import NullObserver, event_token
from tests.integration.mongodb.bench import Client


def store(mongo: MongoDeployment, name: str, collection: str = "orders") -> CheckpointStore:
    return mongo.checkpoints(Watcher(name, Source("shop", collection)))


def at(moment: int, epoch: int = 0, collection: str = "orders") -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=epoch, scope=f"rs0/shop.{collection}")


@pytest.fixture
def bulk(mongo_uri: str, database: str) -> MongoDeployment:
    return MongoDeployment(mongo_uri, state_database=database)


async def test_of_many_written_together_each_is_told_what_became_of_its_own(
    bulk: MongoDeployment, client: Client, database: str
) -> None:
    kept = client[database].checkpoints
    names = [f"w{number}" for number in range(40)]
    stores = {name: store(bulk, name) for name in names}
    assert all(await asyncio.gather(*(one.create(at(5)) for one in stores.values())))
    assert await stores["w1"].begin(at(2, 1))  # moved on purpose meanwhile
    assert await stores["w2"].advance(at(9))  # another instance was first
    kept.delete_one({"_id": "w3"})  # by hand
    kept.replace_one({"_id": "w4"}, {"mine": True})  # somebody else's by now
    results = await asyncio.gather(*(one.advance(at(7)) for one in stores.values()), return_exceptions=True)
    told = dict(zip(names, results, strict=True))
    assert isinstance(told.pop("w4"), ScopeMismatch)
    assert {name for name, stored in told.items() if stored is not True} == {"w1", "w2"}
    read = await asyncio.gather(*(stores[name].read() for name in told))
    tokens = {name: one.token for name, one in zip(told, read, strict=True) if one is not None}
    assert tokens == dict.fromkeys(told, event_token(7)) | {"w1": event_token(2), "w2": event_token(9)}
    assert kept.find_one({"_id": "w4"}) == {"_id": "w4", "mine": True}
    bulk.close()


async def test_positions_are_stored_again_where_their_collection_was_dropped(
    bulk: MongoDeployment, client: Client, database: str
) -> None:
    stores = [store(bulk, f"w{number}") for number in range(10)]
    await asyncio.gather(*(one.create(at(1)) for one in stores))
    client[database].drop_collection("checkpoints")
    assert all(await asyncio.gather(*(one.advance(at(2)) for one in stores)))
    for one in await asyncio.gather(*(one.read() for one in stores)):
        assert one is not None
        assert (one.token, one.native) == (event_token(2), True)
    bulk.close()


async def test_a_first_position_in_a_collection_that_was_made_again_a_moment_ago_is_no_copy(
    bulk: MongoDeployment, client: Client, database: str
) -> None:
    first, other = store(bulk, "first"), store(bulk, "other")
    assert await first.create(at(1))
    client[database].drop_collection("checkpoints")
    client[database].create_collection("checkpoints")
    assert await other.create(at(1))
    found = await other.read()
    assert found is not None
    assert (found.token, found.native) == (event_token(1), True)
    bulk.close()


async def test_what_a_watcher_of_another_collection_left_under_the_name_is_replaced(bulk: MongoDeployment) -> None:
    removed, added = store(bulk, "orders"), store(bulk, "orders", "others")
    assert await removed.create(at(9))
    assert await added.read() is None
    assert await added.create(at(1, collection="others"))
    assert await removed.read() is None
    found = await added.read()
    assert found is not None
    assert found.token == event_token(1)
    await removed.delete()
    assert await added.read() is not None
    bulk.close()


@pytest.mark.parametrize("sent", [True, False])
async def test_one_that_stops_waiting_takes_nothing_from_the_others(
    mongo_uri: str, database: str, client: Client, sent: bool
) -> None:
    """Cancelled once its command is sent, it has ended when the call is over. Before that, it is never sent."""
    gate, under_way = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Gated(NullObserver):
        def command_started(self, database: str, command: str) -> None:
            if command == "update":
                loop.call_soon_threadsafe(under_way.set)
                assert gate.wait(20)

    bulk = MongoDeployment(mongo_uri, state_database=database, observer=Gated())
    stores = [store(bulk, f"w{number}") for number in range(10)]
    first = asyncio.create_task(store(bulk, "first").advance(at(3)))
    if not sent:
        await under_way.wait()  # the others wait for the next command
    writing = [asyncio.create_task(one.advance(at(3))) for one in stores]
    await under_way.wait()
    await asyncio.sleep(0)
    writing[4].cancel()
    if not sent:
        with pytest.raises(asyncio.CancelledError):
            await writing[4]
        assert not first.done(), "a cancelled one waits for nobody's command"
    gate.set()
    results = await asyncio.gather(first, *writing, return_exceptions=True)
    assert [result for result in results if result is not True] == [results[5]]
    assert isinstance(results[5], asyncio.CancelledError)
    found = await stores[4].read()
    assert (found is not None) == sent
    bulk.close()
