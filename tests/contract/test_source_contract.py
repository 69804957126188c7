"""What every change source keeps: nothing lost, doubled or reordered between any two positions it ever gave."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

import bson
import pymongo
import pytest
import pytest_asyncio

from app.domain.errors import SourceUnavailable, TokenRefused
from app.domain.tokens import cluster_time
from app.domain.watcher import Source, Start, Watcher
from app.formats import native
from app.mongodb import watcher_stream
from app.mongodb.change_source import MongoChangeSource
from app.mongodb.deployment import MongoDeployment
from app.mongodb.feeds import sharing
from app.ports import ChangeSource, SourceBatch
from tests.fakes import FakeOplog, FakeSource
from tests.splitting import AlwaysTooLarge, Splitting

BATCH = 3


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has no events answers soon: almost every test reads once more than there is to read."""
    monkeypatch.setattr(watcher_stream, "AWAIT_MS", 50)
    monkeypatch.setattr(watcher_stream, "AWAIT_MOST_MS", 100)
    monkeypatch.setattr(sharing, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(sharing, "QUIET_SECONDS", (0.1, 0.2))


class Place(Protocol):
    """A collection that can be written to, and sources that watch it."""

    def source(self) -> ChangeSource: ...
    def write(self, *keys: int) -> None: ...


class FakePlace:
    def __init__(self) -> None:
        self._oplog = FakeOplog()

    def source(self) -> ChangeSource:
        return FakeSource(self._oplog, batch=BATCH)

    def write(self, *keys: int) -> None:
        for key in keys:
            self._oplog.happen(documentKey={"_id": key})


class MongoPlace:
    def __init__(self, uri: str, database: str) -> None:
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.deployment = MongoDeployment(uri, state_database="changewire", batch_size=BATCH)
        self._watcher = Watcher("w", Source(database, "orders"))
        self._collection = self.client[database]["orders"]

    def source(self) -> ChangeSource:
        return self.deployment.source(self._watcher)

    def write(self, *keys: int) -> None:
        for key in keys:
            self._collection.insert_one({"_id": key})


class SharedPlace(MongoPlace):
    """Another watcher of the database is there, so each source reads from the database's change stream."""

    def __init__(self, uri: str, database: str) -> None:
        super().__init__(uri, database)
        self.deployment = MongoDeployment(
            uri, state_database="changewire", batch_size=BATCH, split=native.splitter("auto")
        )
        self._neighbour = self.deployment.source(Watcher("neighbour", Source(database, "neighbours")))

    async def prepare(self) -> None:
        await self._neighbour.prepare()
        await self._neighbour.open(await self._neighbour.locate(Start("latest")))

    async def close(self) -> None:
        await self._neighbour.close()
        await self.deployment.end_feeds()


class LargeEventsPlace(MongoPlace):
    """Every event is too large to be sent whole, whether the server splits such events or not."""

    def source(self) -> ChangeSource:
        client = self.around(self.deployment.reach.client)
        reach = replace(self.deployment.reach, client=client, patient=lambda: client)
        return MongoChangeSource(self._watcher, reach, batch_size=BATCH)

    def around(self, client: Any) -> Any:
        return AlwaysTooLarge(client)


class SplittingPlace(LargeEventsPlace):
    """The same on a server that is made to split."""

    def around(self, client: Any) -> Any:
        return Splitting(AlwaysTooLarge(client))


PLACES: dict[str, tuple[type[MongoPlace], str]] = {
    "mongo": (MongoPlace, "mongo_uri"),
    "mongo, shared": (SharedPlace, "mongo_uri"),
    "mongo, large events": (LargeEventsPlace, "mongo_uri"),
    "mongo, large events split": (SplittingPlace, "mongo_uri"),
    "newer mongo": (MongoPlace, "newer_mongo_uri"),
    "newer mongo, large events": (LargeEventsPlace, "newer_mongo_uri"),
}
"""Each with the server that it is on."""


@pytest.fixture(params=["fake", *PLACES])
def made(request: pytest.FixtureRequest, database: str) -> FakePlace | MongoPlace:
    if request.param == "fake":
        return FakePlace()
    kind, server = PLACES[request.param]
    return kind(request.getfixturevalue(server), database)


@pytest_asyncio.fixture
async def place(made: FakePlace | MongoPlace, database: str) -> AsyncIterator[Place]:
    if isinstance(made, SharedPlace):
        await made.prepare()
    yield made
    if isinstance(made, FakePlace):
        return
    real = made
    if isinstance(real, SharedPlace):
        await real.close()
    real.deployment.close()
    real.client.drop_database(database)
    real.client.close()


@pytest_asyncio.fixture
async def source(place: Place) -> AsyncIterator[ChangeSource]:
    one = place.source()
    await one.prepare()
    yield one
    await one.close()


def keys(batch: SourceBatch) -> list[int]:
    return [bson.decode(event)["documentKey"]["_id"] for event in batch.events]


def tokens(batch: SourceBatch) -> list[str]:
    return [bson.decode(event)["_id"]["_data"] for event in batch.events]


async def read_until(source: ChangeSource, count: int) -> list[SourceBatch]:
    """Read until `count` events have come, and once more: whatever is too much shows as well."""
    batches: list[SourceBatch] = []
    deadline = time.monotonic() + 20
    while sum(len(batch.events) for batch in batches) < count:
        assert time.monotonic() < deadline, f"only {batches} came"
        batches.append(await source.read())
    return [*batches, await source.read()]


def all_keys(batches: list[SourceBatch]) -> list[int]:
    return [key for batch in batches for key in keys(batch)]


async def test_latest_delivers_what_comes_and_nothing_earlier(place: Place, source: ChangeSource) -> None:
    place.write(1, 2)
    await source.open(await source.locate(Start("latest")))
    place.write(3, 4)
    assert all_keys(await read_until(source, 2)) == [3, 4]


async def test_what_is_written_between_locating_and_opening_is_not_lost(place: Place, source: ChangeSource) -> None:
    position = await source.locate(Start("latest"))
    place.write(1, 2)
    await source.open(position)
    assert all_keys(await read_until(source, 2)) == [1, 2]


async def test_a_token_as_start_delivers_what_follows_it(place: Place, source: ChangeSource) -> None:
    await source.open(await source.locate(Start("latest")))
    place.write(1, 2, 3)
    batches = await read_until(source, 3)
    second = [token for batch in batches for token in tokens(batch)][1]
    await source.open(await source.locate(Start("token", second)))
    assert all_keys(await read_until(source, 1)) == [3]


async def test_resuming_after_any_event_or_position_neither_loses_nor_doubles(
    place: Place, source: ChangeSource
) -> None:
    await source.open(await source.locate(Start("latest")))
    written = list(range(8))
    place.write(*written)
    batches = await read_until(source, len(written))
    seen: list[int] = []
    resumptions: list[tuple[str, list[int]]] = []
    for batch in batches:
        for token, key in zip(tokens(batch), keys(batch), strict=True):
            seen.append(key)
            resumptions.append((token, seen.copy()))
        resumptions.append((batch.position, seen.copy()))
    assert seen == written

    async def resumed(position: str, before: list[int]) -> None:
        again = place.source()
        await again.open(position)
        rest = all_keys(await read_until(again, len(written) - len(before)))
        await again.close()
        assert before + rest == written

    await asyncio.gather(*(resumed(position, before) for position, before in resumptions))


async def test_a_batch_is_bounded_sized_and_covered_by_its_position(place: Place, source: ChangeSource) -> None:
    await source.open(await source.locate(Start("latest")))
    place.write(*range(7))
    batches = await read_until(source, 7)
    for batch in batches:
        assert len(batch.events) <= BATCH
        assert batch.size == sum(len(event) for event in batch.events)
        assert all(token <= batch.position for token in tokens(batch))
        assert all(type(event) is bytes for event in batch.events)
        assert batch.operation_time >= cluster_time(batch.position).seconds - 1
    positions = [batch.position for batch in batches]
    assert positions == sorted(positions)


async def test_an_idle_position_moves_on_and_loses_nothing_that_comes_after(place: Place, source: ChangeSource) -> None:
    begin = await source.locate(Start("latest"))
    await source.open(begin)
    batches = [await source.read() for _ in range(3)]
    assert all(batch.events == [] and batch.position >= begin for batch in batches)
    await source.close()
    place.write(1)
    await source.open(batches[-1].position)
    assert all_keys(await read_until(source, 1)) == [1]


async def test_a_cancelled_read_loses_nothing_for_the_next_opening(place: Place, source: ChangeSource) -> None:
    position = await source.locate(Start("latest"))
    await source.open(position)
    await source.read()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    place.write(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await source.close()
    await source.open(position)
    assert all_keys(await read_until(source, 1)) == [1]


@pytest.mark.parametrize("token", ["", "82", "not hex", "82ZZ", "0" * 40, "8263"])
async def test_what_is_no_token_is_refused_and_not_read_from_now(source: ChangeSource, token: str) -> None:
    with pytest.raises(TokenRefused):
        await source.open(token)
    with pytest.raises(TokenRefused):
        await source.locate(Start("token", token))


async def test_closing_twice_or_before_opening_is_fine_and_a_closed_source_does_not_read(
    place: Place, source: ChangeSource
) -> None:
    await source.close()
    await source.open(await source.locate(Start("latest")))
    await source.close()
    await source.close()
    with pytest.raises(SourceUnavailable):
        await source.read()


async def test_two_sources_of_one_collection_see_the_same(place: Place, source: ChangeSource) -> None:
    position = await source.locate(Start("latest"))
    other = place.source()
    assert await other.prepare() > 0
    assert other.scope == source.scope
    await source.open(position)
    await other.open(position)
    place.write(1, 2)
    one, two = await read_until(source, 2), await read_until(other, 2)
    assert [t for batch in one for t in tokens(batch)] == [t for batch in two for t in tokens(batch)]
    await other.close()


async def test_an_event_is_found_in_the_history_and_what_never_happened_is_not(
    place: Place, source: ChangeSource
) -> None:
    await source.open(await source.locate(Start("latest")))
    place.write(1, 2, 3)
    first, second, third = [token for batch in await read_until(source, 3) for token in tokens(batch)]
    assert [await source.has_event(token) for token in (first, second, third)] == [True, True, True]
    between = second[:-6] + f"{int(second[-6:], 16) ^ 0x100:06X}"
    assert await source.has_event(between) is False
    later = f"{third[:2]}{cluster_time(third).seconds + 3600:08X}{third[10:]}"
    assert await source.has_event(later) is None
    place.write(4)
    assert all_keys(await read_until(source, 1)) == [4], "looking has moved what is open"
