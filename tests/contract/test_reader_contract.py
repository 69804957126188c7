"""What every `StreamReader` promises, asked of the adapter and of the fake: the watcher's messages, and facts."""

from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio

from app.domain.watcher import Watcher, from_document
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.stream_api import StreamApi
from app.ports import StreamReader
from tests.fakes import FakeNats, FakeStream


class Place(Protocol):
    async def connect(self) -> None: ...
    async def begin(self, subjects: list[str]) -> None: ...
    async def publish(self, subject: str) -> None: ...
    async def purge(self) -> None: ...
    def reader(self) -> StreamReader: ...
    async def close(self) -> None: ...


class RealPlace:
    def __init__(self, url: str, watcher: Watcher) -> None:
        self._connection = NatsConnection(NatsOptions((url,)))
        self._api = StreamApi(self._connection)
        self._watcher = watcher

    async def begin(self, subjects: list[str]) -> None:
        await self._api.create({"name": self._watcher.sink.stream, "subjects": subjects, "storage": "memory"})

    async def connect(self) -> None:
        self._connection.start()
        await self._connection.ready(5)

    async def publish(self, subject: str) -> None:
        await self._connection.request(subject, b"{}")

    async def purge(self) -> None:
        await self._api.call(f"STREAM.PURGE.{self._watcher.sink.stream}")

    def reader(self) -> StreamReader:
        return JetStream(self._connection).reader(self._watcher)

    async def close(self) -> None:
        await self._connection.close()


class FakePlace:
    def __init__(self, watcher: Watcher) -> None:
        self._account = FakeNats()
        self._watcher = watcher

    async def connect(self) -> None:
        return

    async def begin(self, subjects: list[str]) -> None:
        name = self._watcher.sink.stream
        self._account.streams[name] = FakeStream(name, subjects)

    async def publish(self, subject: str) -> None:
        self._account.streams[self._watcher.sink.stream].neighbour(subject)

    async def purge(self) -> None:
        self._account.streams[self._watcher.sink.stream].purge()

    def reader(self) -> StreamReader:
        return self._account.reader(self._watcher)

    async def close(self) -> None:
        return


@pytest.fixture
def watcher(stream: str) -> Watcher:
    source = {"database": "shop", "collection": "orders"}
    return from_document({"name": "orders", "source": source, "sink": {"stream": stream}})


@pytest.fixture(params=["fake", "real"])
def unconnected(request: pytest.FixtureRequest, watcher: Watcher) -> Place:
    """One of the implementations; the fake needs no server."""
    return FakePlace(watcher) if request.param == "fake" else RealPlace(request.getfixturevalue("nats_url"), watcher)


@pytest_asyncio.fixture
async def place(unconnected: Place) -> AsyncIterator[Place]:
    await unconnected.connect()
    yield unconnected
    await unconnected.close()


async def numbers(reader: StreamReader, count: int) -> list[int]:
    return [message.sequence for message in await reader.last(count)]


async def test_without_a_stream_there_is_nothing(place: Place) -> None:
    reader = place.reader()
    assert await reader.facts() is None
    assert await reader.newest() == 0
    assert await reader.last(20) == []
    assert await reader.after(0, 20) == []


async def test_messages_are_the_watchers_own_in_order(place: Place, stream: str) -> None:
    await place.begin([f"{stream}.*", f"other.{stream}"])
    for number in range(40):
        await place.publish(f"{stream}.insert" if number % 4 == 0 else f"other.{stream}")
    reader = place.reader()
    assert await reader.newest() == 37
    assert await numbers(reader, 3) == [29, 33, 37]
    assert await numbers(reader, 100) == [1, 5, 9, 13, 17, 21, 25, 29, 33, 37]
    assert await reader.last(0) == []
    assert [message.sequence for message in await reader.after(6, 2)] == [9, 13]
    assert await reader.after(37, 2) == []
    (message,) = await reader.last(1)
    assert (message.subject, message.body) == (f"{stream}.insert", b"{}")


async def test_of_a_stretch_with_many_messages_behind_a_wide_gap_the_newest_are_found(
    place: Place, stream: str
) -> None:
    await place.begin([f"{stream}.*", f"other.{stream}"])
    for subject, count in ((f"{stream}.insert", 60), (f"other.{stream}", 70), (f"{stream}.update", 1)):
        for _ in range(count):
            await place.publish(subject)
    assert await numbers(place.reader(), 5) == [57, 58, 59, 60, 131]


async def test_facts_count_what_the_stream_holds(place: Place, stream: str) -> None:
    await place.begin([f"{stream}.*"])
    for _ in range(3):
        await place.publish(f"{stream}.insert")
    facts = await place.reader().facts()
    assert facts is not None
    assert (facts.name, facts.subjects) == (stream, (f"{stream}.*",))
    assert (facts.messages, facts.first_sequence, facts.last_sequence) == (3, 1, 3)
    assert facts.bytes > 0
    assert (facts.max_bytes, facts.max_messages, facts.max_age_seconds) == (-1, -1, 0)
    assert (facts.consumers, facts.consumers_why) == ((), None)


async def test_purged_stream_has_no_messages_and_keeps_its_sequence(place: Place, stream: str) -> None:
    await place.begin([f"{stream}.*"])
    await place.publish(f"{stream}.insert")
    await place.purge()
    reader = place.reader()
    assert await reader.newest() == 0
    assert await reader.last(5) == []
    facts = await reader.facts()
    assert facts is not None
    assert (facts.messages, facts.last_sequence) == (0, 1)
