"""How `changewire verify` reads a stream whose server is too busy to answer in time, or is gone for a while."""

import asyncio
from collections.abc import AsyncIterator

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.js.api import StreamConfig
from nats.js.object_store import ObjectStore

from app.config.settings import Settings
from app.devservers.servers import NatsServer
from app.domain.watcher import Source, Watcher
from app.verify import streams
from app.verify.errors import CannotCompare
from app.verify.streams import Streams

COUNT = 1700
WATCHER = Watcher("orders", Source("shop", "orders")).with_defaults()


@pytest_asyncio.fixture
async def server(own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsServer]:
    """A server with a stream of `COUNT` messages; calls of `verify` give up within half a second."""
    monkeypatch.setattr(streams, "CALL_SECONDS", 0.5)
    async with await nats.connect(own_nats.url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(name=WATCHER.sink.stream, subjects=[WATCHER.space]))
        answers = [
            await jetstream.publish_async(WATCHER.space.replace("*", "insert"), b"{}", wait_stall=30)
            for _ in range(COUNT)
        ]
        await asyncio.gather(*answers)
    yield own_nats


async def thaw(server: NatsServer, seconds: float) -> None:
    await asyncio.sleep(seconds)  # the scenario itself
    server.thaw()


async def test_all_messages_come_once_and_in_order_though_the_server_says_nothing_for_a_while(
    server: NatsServer,
) -> None:
    async with Streams(Settings(nats_url=server.url)) as reader:
        assert (await reader.info(WATCHER.sink.stream)).last == COUNT
        found = []
        async with asyncio.TaskGroup() as group:
            async for message in reader.messages(WATCHER, COUNT):
                found.append(message.sequence)
                if len(found) in (1, streams.BATCH, COUNT - 1):
                    server.freeze()
                    group.create_task(thaw(server, 1.2), name="thaw")
        assert found == list(range(1, COUNT + 1))


async def test_calls_are_made_again_where_no_answer_comes(server: NatsServer) -> None:
    async with Streams(Settings(nats_url=server.url)) as reader, asyncio.TaskGroup() as group:
        server.freeze()
        group.create_task(thaw(server, 1.2), name="thaw")
        assert (await reader.info(WATCHER.sink.stream)).last == COUNT


async def test_all_messages_come_once_and_in_order_though_the_server_restarts(server: NatsServer) -> None:
    async with Streams(Settings(nats_url=server.url)) as reader:
        found = []
        async for message in reader.messages(WATCHER, COUNT):
            found.append(message.sequence)
            if len(found) in (1, streams.BATCH, COUNT - 1):
                server.kill()
                await server.start()
        assert found == list(range(1, COUNT + 1))


async def test_calls_are_made_again_where_the_server_is_gone_for_a_while(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach, tries = Streams._reach, 0

    async def tried(self: Streams) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            await server.start()
        await reach(self)

    async with Streams(Settings(nats_url=server.url)) as reader:
        monkeypatch.setattr(Streams, "_reach", tried)
        server.kill()
        assert (await reader.info(WATCHER.sink.stream)).last == COUNT
    assert tries >= 2


async def test_another_consumer_goes_on_where_one_is_gone(server: NatsServer) -> None:
    """As that of another node which restarts: it was kept in memory."""
    async with await nats.connect(server.url) as client, Streams(Settings(nats_url=server.url)) as reader:
        found = []
        async for message in reader.messages(WATCHER, COUNT):
            found.append(message.sequence)
            if len(found) in (1, streams.BATCH, COUNT - 1):
                for each in await client.jetstream().consumers_info(WATCHER.sink.stream):
                    await client.jetstream().delete_consumer(WATCHER.sink.stream, each.name)
        assert found == list(range(1, COUNT + 1))


async def test_dead_letters_that_cannot_be_read_are_not_taken_for_none(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Streams(Settings(nats_url=server.url)) as reader:
        assert await reader.letters(WATCHER) == set()

        async def ask(*_: object) -> dict[str, object]:
            return {"error": {"code": 500, "description": "it is broken"}}

        monkeypatch.setattr(reader, "_ask", ask)
        with pytest.raises(CannotCompare, match="cannot be read: it is broken"):
            await reader.letters(WATCHER)


BODY = b"x" * 300_000


@pytest_asyncio.fixture
async def large(server: NatsServer) -> NatsServer:
    async with await nats.connect(server.url) as client:
        bucket = await client.jetstream().create_object_store("large")
        await bucket.put("one", BODY)
    return server


async def test_an_object_is_asked_for_again_where_the_server_says_nothing_for_a_while(large: NatsServer) -> None:
    async with Streams(Settings(nats_url=large.url)) as reader, asyncio.TaskGroup() as group:
        large.freeze()
        group.create_task(thaw(large, 1.2), name="thaw")
        assert await reader.object("large/one") == BODY


async def test_an_object_of_which_only_a_part_came_is_asked_for_again(
    large: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py returns what it has got where the connection breaks."""
    whole = ObjectStore.get

    async with Streams(Settings(nats_url=large.url)) as reader:

        async def part(self: ObjectStore, name: str) -> ObjectStore.ObjectResult:
            monkeypatch.setattr(ObjectStore, "get", whole)
            found = await whole(self, name)
            found.data = (found.data or b"")[:100_000]
            await reader._client.close()
            return found

        monkeypatch.setattr(ObjectStore, "get", part)
        assert await reader.object("large/one") == BODY


async def test_an_object_is_asked_for_again_where_the_server_restarts(large: NatsServer) -> None:
    async with Streams(Settings(nats_url=large.url)) as reader:
        large.kill()
        await large.start()
        assert await reader.object("large/one") == BODY
        for missing in ("large/two", "none/one"):
            with pytest.raises(ValueError, match=f"its object {missing} is missing or incomplete"):
                await reader.object(missing)


async def test_one_that_stays_gone_ends_the_reading(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_SECONDS", 2.0)
    async with Streams(Settings(nats_url=server.url)) as reader:
        server.kill()
        with pytest.raises(nats.errors.Error):
            await reader.info(WATCHER.sink.stream)
        with pytest.raises(nats.errors.Error):
            await anext(reader.messages(WATCHER, COUNT))


async def test_one_that_stays_silent_is_said_to_be(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_SECONDS", 2.0)
    async with Streams(Settings(nats_url=server.url)) as reader:
        server.freeze()
        try:
            with pytest.raises(TimeoutError) as caught:
                await reader.info(WATCHER.sink.stream)
            assert streams.words(caught.value) == "no answer in time"
        finally:
            server.thaw()
