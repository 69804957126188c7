"""Servers that die or freeze while changes are published: each change is there once, in order."""

import asyncio
from pathlib import Path

import pytest

from app.devservers.servers import Launch, NatsServer
from app.domain.errors import OutcomeUnknown, SinkUnavailable
from app.domain.watcher import Watcher
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import USERS, ConnectAccount
from tests.nats_account import changes, ids, make_watcher, opened, relay, until_left, up

pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.mark.long
@pytest.mark.parametrize("setting", ["allow_batched", "allow_atomic", "allow_direct"])
async def test_killed_while_publishing_each_change_is_there_once_in_order(
    make_nats: MakeNats, connect_account: ConnectAccount, stream: str, setting: str
) -> None:
    server = await make_nats(config=USERS)
    admin, limited = [await connect_account(server.url, user=user, password="secret") for user in ("admin", "limited")]
    await admin.create(stream, duplicate_window=100_000_000, **{setting: True})
    sink, _ = await opened(limited, make_watcher(stream))
    modes = {"allow_batched": "fast_ingest", "allow_atomic": "atomic", "allow_direct": "window"}
    assert sink.mode == modes[setting]
    batch = changes(1, 4001, size=1000)
    left = [len(batch)]
    work = asyncio.create_task(relay(sink, batch, size=200, left=left), name="relay")
    for mark in (3000, 1500):
        await until_left(mark, left, work)
        server.kill()
        await server.start()
    await asyncio.wait_for(work, 60)
    await up(admin)
    assert await admin.ids(stream) == [change.id for change in batch]


async def test_a_frozen_server_makes_an_unknown_outcome_long_before_the_deadline(
    own_nats: NatsServer, connect_account: ConnectAccount, watcher: Watcher, impatient: None
) -> None:
    account = await connect_account(own_nats.url)
    sink, fence = await opened(account, watcher)
    own_nats.freeze()
    try:
        async with asyncio.timeout(40):
            with pytest.raises(OutcomeUnknown):
                await sink.publish(changes(1, 500, size=8000), fence)  # deadline: 85 s
        with pytest.raises(SinkUnavailable):
            await sink.publish(changes(1, 500), fence)
    finally:
        own_nats.thaw()
    await up(account)
    await relay(sink, changes(1, 500, size=8000), size=500)
    assert await account.ids(watcher.sink.stream) == ids(1, 500)


async def test_a_server_without_atomic_batches_is_written_in_windows_and_survives_its_death(
    make_nats: MakeNats, connect_account: ConnectAccount, older_server: Path, watcher: Watcher
) -> None:
    server = await make_nats(launch=Launch(binary=older_server))
    account = await connect_account(server.url)
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.exclusive) == ("window", True)
    batch = changes(1, 5001, size=500)
    left = [len(batch)]
    writers = [asyncio.create_task(relay(sink, batch, size=200, left=left), name="relay")]
    other, _ = await opened(account, watcher)
    writers.append(asyncio.create_task(relay(other, batch, size=130), name="zombie"))
    for mark in (3500, 1500):
        await until_left(mark, left, *writers)
        server.kill()
        await server.start()
    await asyncio.wait_for(asyncio.gather(*writers), 60)
    await up(account)
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]
