"""What a message may measure is what the server and the stream really take."""

from dataclasses import replace

import pytest

from app.domain.watcher import Watcher
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import ConnectAccount
from tests.nats_account import Account, changes, ids, opened

pytestmark = pytest.mark.usefixtures("small_batches")


async def test_the_streams_own_size_limit_counts_too(nats: Account, watcher: Watcher) -> None:
    await nats.create(watcher.sink.stream, max_msg_size=5000)
    sink, fence = await opened(nats, watcher)
    fits = max(size for size in range(3000, 5001) if not sink.too_large(changes(1, 2, size=size)[0]))
    assert await sink.publish(changes(1, 4, size=fits), fence) == 3
    assert await nats.ids(watcher.sink.stream) == ids(1, 4)
    assert sink.too_large(changes(1, 2, size=fits + 1)[0])


async def test_max_payload_is_the_servers(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    account = await connect_account((await make_nats(max_payload=20_000)).url)
    sink, fence = await opened(account, watcher)
    fits = max(size for size in range(15_000, 20_001) if not sink.too_large(changes(1, 2, size=size)[0]))
    headers = (("Changewire-Reduced", "x" * 500),)
    assert sink.too_large(replace(changes(1, 2, size=fits)[0], headers=headers))
    assert await sink.publish(changes(1, 4, size=fits), fence) == 3
    large = replace(changes(4, 5, size=300_000)[0], pointer=b"{}")
    pointer = await sink.claim_check(large, b"{}")
    assert await sink.publish([pointer], 3) == 4
    assert await account.ids(watcher.sink.stream) == ids(1, 5)
