"""A real mongod that is killed, frozen or slow under the reader, and readers that are cancelled."""

import asyncio
import time

import bson
import pytest

from app.devservers.servers import MongoServer
from app.domain.errors import (
    SourceUnavailable,
    TransientError,
)
from app.domain.watcher import Start
from app.mongodb import watcher_stream
from tests.integration.mongodb.bench import (
    SOCKET_SECONDS,
    Event,
    MakeBench,
    found_again,
    last_is,
    opened,
    read_until,
    said,
)


async def test_a_killed_server_is_an_outage_and_nothing_is_lost_or_doubled(
    own_mongo: MongoServer, make_bench: MakeBench
) -> None:
    bench = make_bench(own_mongo.uri, batch_size=7)
    source = bench.source()
    position = await opened(source)
    events: list[Event] = []
    outages = 0

    async def read_on(until: int) -> None:
        nonlocal position, outages
        deadline = time.monotonic() + 100
        while not last_is(until)(events):
            assert time.monotonic() < deadline, f"only {said(events)} came"
            try:
                batch = await source.read()
            except TransientError:
                outages += 1
                try:
                    await source.open(position)
                except TransientError:
                    await asyncio.sleep(0.05)
                continue
            events.extend(bson.decode(raw) for raw in batch.events)
            position = batch.position

    bench.insert(*range(20))
    await read_on(19)
    reading = asyncio.create_task(read_on(40), name="reading")
    await asyncio.sleep(0)
    for key in (20, 30):
        own_mongo.kill()
        await own_mongo.start()
        await asyncio.to_thread(bench.insert, *range(key, key + 10))
    await asyncio.to_thread(bench.insert, 40)
    await reading
    assert said(events) == list(range(41))
    assert outages > 0
    await source.close()


async def test_a_frozen_server_is_noticed_long_before_the_socket_timeout(
    own_mongo: MongoServer, make_bench: MakeBench
) -> None:
    source = make_bench(own_mongo.uri).source()
    position = await opened(source)
    await source.read()
    own_mongo.freeze()
    async with asyncio.timeout(SOCKET_SECONDS - 2):
        with pytest.raises(SourceUnavailable):
            await read_until(source, lambda events: False)
    own_mongo.thaw()
    await found_again(lambda: source.open(position))
    await source.close()


async def test_closing_on_a_frozen_server_returns(own_mongo: MongoServer, make_bench: MakeBench) -> None:
    source = make_bench(own_mongo.uri).source()
    await opened(source)
    await source.read()
    own_mongo.freeze()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(SOCKET_SECONDS - 2):
        await source.close()
    own_mongo.thaw()


async def test_a_server_slower_than_the_socket_timeout_is_waited_for_the_second_time(
    mongo_uri: str, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it scans a long oplog: given up each time, it would start over each time."""
    monkeypatch.setattr(watcher_stream, "AWAIT_MS", 4_000)  # so long an empty read takes
    bench = make_bench(f"{mongo_uri}&socketTimeoutMS=2000")
    source = bench.source()
    position = await opened(source)
    await source.read()
    with pytest.raises(SourceUnavailable):
        await source.read()
    await source.open(position)
    bench.insert(1)
    assert said(await read_until(source, last_is(1))) == [1]
    await source.close()


async def test_a_cancelled_reader_leaves_no_cursor_behind(
    own_mongo: MongoServer, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.mongodb.cursor.CLOSE_SECONDS", 30.0)  # for a read that is slow to end
    bench = make_bench(own_mongo.uri)
    source = bench.source()
    await source.prepare()
    position = await source.locate(Start("latest"))
    assert bench.open_cursors() == 0
    for turns in range(4):  # while opening, and while reading
        opening = asyncio.ensure_future(source.open(position))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait((opening,))
        await source.close()
    await source.open(position)
    await source.read()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0.05)
    assert bench.open_cursors() == 1
    reading.cancel()
    await asyncio.wait((reading,))
    await source.close()
    assert bench.open_cursors() == 0
