"""A watcher that is replaced goes on without loss or doubling, wherever its changes go from then on."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live import Live, until


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def test_put_creates_with_201_and_replaces_with_200(service: Live) -> None:
    definition = service.definition()
    definition.pop("name")
    answer = await service.call("PUT", "/watchers/orders", 201, json=definition)
    assert answer.headers["Location"] == "/watchers/orders"
    await service.reaches("RUNNING")
    assert "Location" not in (await service.call("PUT", "/watchers/orders", 200, json=definition)).headers
    await service.refused(422, "PUT", "/watchers/orders", json={**definition, "name": "another"})
    assert len(service.stored()) == 1


async def test_replacing_operations_and_pipeline_goes_on_without_loss_or_doubling(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.put(sink={"operations": ["insert", "delete"]})
    service.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    service.insert(3)
    await service.seen("1", "2", "3")
    await service.put(
        sink={"operations": ["insert", "delete"]}, source={"pipeline": [{"$match": {"fullDocument._id": {"$gt": 100}}}]}
    )
    service.insert(4, 101)
    await service.seen("1", "2", "3", "101")
    await service.put()
    service.insert(5)
    service.orders.update_one({"_id": 1}, {"$set": {"a": 2}})
    await service.seen("1", "2", "3", "101", "5", "update 1")


async def test_replacing_under_load_loses_and_doubles_nothing(service: Live) -> None:
    await service.add()
    keys = list(range(600))
    for round_ in range(3):
        service.orders.insert_many([{"_id": key} for key in keys[200 * round_ : 200 * round_ + 200]])
        await service.put(source={"pipeline": [{"$match": {"operationType": {"$ne": f"nothing {round_}"}}}]})
    await service.seen(*map(str, keys))


async def test_replacing_the_subject_goes_on_under_the_new_one_each_change_once(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.put(sink={"subject": "{stream}.{database}.{operation}"})
    service.insert(3)
    found = await service.seen("1", "2", "3")
    assert found[2].subject == f"{service.stream}.{service.database}.insert"
    await service.put()
    service.insert(4)
    assert (await service.seen("1", "2", "3", "4"))[3].subject == f"{service.stream}.insert"


async def test_replacing_the_stream_goes_on_there_from_where_it_was(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.pause()
    service.insert(2)
    await service.put(sink={"stream": f"{service.stream}_2"})
    service.insert(3)
    await service.seen("2", "3", stream=f"{service.stream}_2")
    await service.seen("1")


async def test_a_failed_watcher_whose_checkpoint_is_behind_doubles_nothing_under_a_new_subject(service: Live) -> None:
    await service.streams.create(service.stream, subjects=[f"{service.stream}.>"])
    await service.add(sink={"oversize": "fail"})
    # The checkpoint is written at most twice a second: what follows the first one is not in it when the watcher fails.
    service.insert(0)
    await until(lambda: any("sequence" in one and one["sequence"] for one in service.checkpoint()))
    for key in range(1, 11):
        service.insert(key)
    await service.seen(*map(str, range(11)))
    service.orders.insert_one({"_id": 11, "much": "x" * 1_100_000})
    await service.reaches("FAILED")
    await service.put(sink={"subject": "{stream}.{database}.{operation}"})
    await service.seen(*map(str, range(12)))


@pytest.mark.parametrize(
    "places",
    [("shared", "a"), ("a", "shared"), ("a", "b"), ("shared", "a", "shared", "a"), ("a", "shared", "a", "shared")],
    ids="-".join,
)
async def test_replacing_the_checkpoint_place_takes_the_position_along(service: Live, places: tuple[str, ...]) -> None:
    first, *others = (None if each == "shared" else {"collection": f"{each}_{service.unique}"} for each in places)
    await service.add(start={"at": "latest"}, checkpoint=first)
    await service.pause()
    for place in others:
        await service.put(checkpoint=place, paused=True)
    await service.restart()  # nothing is on the stream and nothing in memory: the stored position alone can tell
    service.insert(1)
    await service.resume()
    service.insert(2)
    await service.seen("1", "2")


async def test_put_with_another_collection_is_409_and_changes_nothing(service: Live) -> None:
    await service.add()
    before = await service.facts()
    other = service.definition(source={"collection": f"other_{service.unique}"})
    assert "its collection" in await service.refused(409, "PUT", "/watchers/orders", json=other)
    assert (await service.facts())["watchers"] == before["watchers"]
    service.insert(1)
    await service.seen("1")
