"""A shared stream whose server lost what it had not synced, and a neighbour who publishes before we look."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from app.devservers.servers import NatsServer
from tests.conftest import MakeNats
from tests.live import Live, Streams


@asynccontextmanager
async def stopped(server: NatsServer, live: Live) -> AsyncIterator[None]:
    """Take the server away and bring it back; the test's own client is another one afterwards."""
    await live.streams.client.close()
    await server.stop()
    yield
    await server.start()
    live.streams = Streams(await nats.connect(server.url))


@pytest.mark.parametrize("service", ["restarted", "stays up"])
async def test_what_was_lost_is_published_again_though_a_neighbour_has_filled_the_numbers_up(
    mongo_uri: str, make_nats: MakeNats, tmp_path: Path, unique: str, service: str
) -> None:
    data, synced = tmp_path / "nats", tmp_path / "synced"
    server = await make_nats(data=data)
    async with Live(mongo_uri, server.url, unique) as live:
        await live.streams.create(live.stream, subjects=[f"{live.stream}.*", f"neighbour.{live.stream}"])
        await live.add()
        live.insert(1, 2, 3)
        await live.seen("1", "2", "3")
        async with stopped(server, live):
            await asyncio.to_thread(shutil.copytree, data, synced)
        live.insert(4, 5, 6)
        await live.seen(*"123456")
        if service == "restarted":
            await live.stop()  # which writes the checkpoint: of what the server is going to lose
        async with stopped(server, live):
            await asyncio.to_thread(shutil.rmtree, data)
            await asyncio.to_thread(shutil.copytree, synced, data)
        for _ in range(5):
            await live.streams.client.request(f"neighbour.{live.stream}", b'{"operationType": "neighbour"}', timeout=10)
        if service == "restarted":
            await live.start()
        live.insert(7)
        try:
            await live.seen("1", "2", "3", *["neighbour None"] * 5, "4", "5", "6", "7")
        finally:
            await live.streams.client.close()
