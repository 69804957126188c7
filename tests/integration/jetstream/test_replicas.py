"""A stream's replicas changed while it is published to: the next look chooses the mode that is fastest by then."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from app.devservers.servers import HOST
from tests.faults.cluster import NatsCluster
from tests.integration.jetstream.conftest import ConnectAccount
from tests.live import until
from tests.nats_account import Account, changes, ids, make_watcher, opened, relay

Scale = Callable[[int], Awaitable[None]]


@pytest_asyncio.fixture
async def account(connect_account: ConnectAccount) -> AsyncIterator[Account]:
    """One on a cluster of three servers."""
    async with NatsCluster() as cluster:
        yield await connect_account(f"nats://{HOST}:{cluster.ports[0]}")


@pytest.fixture
def scale(account: Account, stream: str) -> Scale:
    """`await scale(replicas)`: change the stream's replicas, and wait until all have caught up."""

    async def change(replicas: int) -> None:
        async def whole() -> bool:
            cluster: dict[str, Any] = (await account.api.call(f"STREAM.INFO.{stream}")).get("cluster") or {}
            peers = cluster.get("replicas") or []
            return bool(cluster.get("leader")) and [peer["current"] for peer in peers] == [True] * (replicas - 1)

        await account.api.update({**(await account.api.info(stream)).config, "num_replicas": replicas})
        await until(whole)

    return change


async def test_the_mode_follows_the_replicas(account: Account, stream: str, scale: Scale) -> None:
    sink, _ = await opened(account, make_watcher(stream))
    modes: list[tuple[str, str | None]] = [(sink.mode, sink.slower)]
    await relay(sink, changes(1, 200))
    for replicas, begin in ((3, 200), (1, 400)):
        await scale(replicas)
        await relay(sink, changes(begin, begin + 200))
        modes.append((sink.mode, sink.slower))
    assert modes == [("fast_ingest", None), ("atomic", None), ("fast_ingest", None)]
    assert await account.ids(stream) == ids(1, 600)


async def test_what_one_replica_needs_is_switched_on_when_there_is_one(
    account: Account, stream: str, scale: Scale
) -> None:
    watcher = make_watcher(stream, replicas=3)
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.slower) == ("atomic", None)
    assert not (await account.api.info(stream)).config.get("allow_batched")
    await relay(sink, changes(1, 200))
    await scale(1)
    await relay(sink, changes(200, 400))
    assert sink.slower is not None
    assert "allow_batched is off" in sink.slower
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.slower) == ("fast_ingest", None)
    await relay(sink, changes(400, 600))
    assert await account.ids(stream) == ids(1, 600)
