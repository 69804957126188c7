"""What every `DeadLetterQueue` promises, asked of adapter and fake: a letter is there once, until removed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import pytest
import pytest_asyncio

from app.domain.dead_letters import Receipt, Unpublishable
from app.domain.watcher import Watcher, from_document
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.ports import DeadLetterQueue
from tests.fakes import FakeNats, event_token


class Place(Protocol):
    async def begin(self, watcher: Watcher) -> None: ...
    def letters(self, watcher: Watcher) -> DeadLetterQueue: ...
    async def close(self) -> None: ...


class RealPlace:
    def __init__(self, url: str) -> None:
        self._connection = NatsConnection(NatsOptions((url,)))
        self._account = JetStream(self._connection)

    async def begin(self, watcher: Watcher) -> None:
        self._connection.start()
        await self._connection.ready(5)
        await self._account.sink(watcher).prepare(may_create=True)

    def letters(self, watcher: Watcher) -> DeadLetterQueue:
        return self._account.letters(watcher)

    async def close(self) -> None:
        await self._connection.close()


class FakePlace:
    def __init__(self) -> None:
        self._account = FakeNats()

    async def begin(self, watcher: Watcher) -> None:
        return

    def letters(self, watcher: Watcher) -> DeadLetterQueue:
        return self._account.letters(watcher)

    async def close(self) -> None:
        return


def make(name: str, stream: str) -> Watcher:
    source = {"database": "shop", "collection": "orders"}
    return from_document({"name": name, "source": source, "sink": {"stream": stream}})


@pytest.fixture
def watcher(stream: str) -> Watcher:
    return make("shop.orders ü", stream)


@pytest.fixture(params=["fake", "real"])
def unbegun(request: pytest.FixtureRequest) -> Place:
    """One of the implementations; the fake needs no server."""
    return FakePlace() if request.param == "fake" else RealPlace(request.getfixturevalue("nats_url"))


@pytest_asyncio.fixture
async def place(unbegun: Place, watcher: Watcher) -> AsyncIterator[Place]:
    await unbegun.begin(watcher)
    yield unbegun
    await unbegun.close()


@pytest.fixture
def letters(place: Place, watcher: Watcher) -> DeadLetterQueue:
    return place.letters(watcher)


def letter(moment: int, size: int = 100) -> Unpublishable:
    raw = bytes([moment]) * size
    key = f'{{"_id":"ü{moment}"}}'
    return Unpublishable(event_token(moment), "insert", "not_encodable", "no\r\nform", raw, key, ("fullDocument",))


async def test_without_a_letter_there_is_nothing(letters: DeadLetterQueue) -> None:
    assert await letters.count() == 0
    assert await letters.page(0, 10) == []
    assert await letters.get(1) is None
    assert await letters.receipt(event_token(1)) is None


async def test_a_letter_is_stored_once_and_found_as_it_was(letters: DeadLetterQueue) -> None:
    assert await letters.store(letter(1), 0)
    assert not await letters.store(letter(1), 0)
    assert not await letters.store(letter(1), 3)
    (listed,) = await letters.page(0, 10)
    assert await letters.count() == 1
    found = await letters.get(listed.sequence)
    assert found is not None
    assert found == replace(listed, raw=letter(1).raw)
    assert (found.token, found.operation, found.reason, found.epoch) == (event_token(1), "insert", "not_encodable", 0)
    assert (found.size, found.key, found.reduced, found.object) == (100, '{"_id":"ü1"}', "fullDocument", None)
    assert found.error.split() == ["no", "form"]


async def test_an_event_that_no_message_holds_is_kept_all_the_same(letters: DeadLetterQueue) -> None:
    large = letter(1, 3_000_000)
    assert await letters.store(large, 0)
    assert not await letters.store(large, 0)
    (listed,) = await letters.page(0, 10)
    found = await letters.get(listed.sequence)
    assert found is not None
    assert found.raw == large.raw
    assert await letters.remove(found)
    assert await letters.count() == 0
    assert await letters.store(large, 1)
    (listed,) = await letters.page(0, 10)
    found = await letters.get(listed.sequence)
    assert found is not None
    assert (found.raw, found.epoch) == (large.raw, 1)


async def test_pages_are_in_the_order_of_storing(letters: DeadLetterQueue) -> None:
    for moment in (3, 1, 2):
        await letters.store(letter(moment), 0)
        await letters.keep_receipt(Receipt(event_token(moment), 0, moment, "now"))
    first = await letters.page(0, 2)
    rest = await letters.page(first[-1].sequence, 2)
    assert [one.token for one in (*first, *rest)] == [event_token(moment) for moment in (3, 1, 2)]
    assert await letters.page(rest[-1].sequence, 2) == []
    assert await letters.count() == 3


async def test_a_removed_letter_is_gone_and_may_come_again(letters: DeadLetterQueue) -> None:
    await letters.store(letter(1), 0)
    await letters.store(letter(2), 0)
    one, two = await letters.page(0, 10)
    assert await letters.remove(one)
    assert not await letters.remove(one)
    assert await letters.page(0, 10) == [two]
    assert await letters.get(one.sequence) is None
    assert await letters.store(letter(1), 0)
    assert [again.token for again in await letters.page(0, 10)] == [event_token(2), event_token(1)]


async def test_a_receipt_is_kept_until_it_is_dropped_and_is_no_letter(letters: DeadLetterQueue) -> None:
    receipt = Receipt(event_token(1), 2, 41, "2026-01-01T00:00:00Z")
    assert await letters.keep_receipt(receipt)
    assert not await letters.keep_receipt(replace(receipt, fence=42))
    kept = await letters.receipt(event_token(1))
    assert kept is not None
    assert replace(kept, sequence=0) == receipt
    assert kept.sequence > 0
    assert await letters.count() == 0
    assert await letters.get(kept.sequence) is None
    await letters.drop_receipt(kept)
    await letters.drop_receipt(kept)
    assert await letters.receipt(event_token(1)) is None
    assert await letters.keep_receipt(replace(receipt, fence=42))


async def test_watchers_of_one_stream_have_letters_of_their_own(place: Place, stream: str) -> None:
    mine, theirs = place.letters(make("mine", stream)), place.letters(make("theirs", stream))
    await mine.store(letter(1), 0)
    (stored,) = await mine.page(0, 10)
    assert await theirs.count() == 0
    assert await theirs.page(0, 10) == []
    assert await theirs.get(stored.sequence) is None
    assert await theirs.store(letter(1), 0)
    assert (await mine.count(), await theirs.count()) == (1, 1)
