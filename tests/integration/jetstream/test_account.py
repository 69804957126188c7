"""What is checked before a watcher is taken on: a look that changes nothing."""

import pytest

from app.devservers.servers import NatsServer
from app.domain.errors import Invalid, SinkUnavailable, Unavailable
from app.domain.watcher import Watcher
from app.jetstream.account import JetStream
from app.jetstream.errors import ApiError
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import Connect, tried
from tests.nats_account import Account, make_watcher


async def test_a_dry_look_creates_and_changes_nothing(nats: Account, stream: str) -> None:
    await nats.account.check_sink(make_watcher(stream))
    with pytest.raises(ApiError, match="not found"):
        await nats.api.info(stream)
    before = await nats.create(stream)
    await nats.account.check_sink(make_watcher(stream))
    assert (await nats.api.info(stream)).config == before


async def test_a_dry_look_refuses_a_name_that_nats_refuses(nats: Account) -> None:
    with pytest.raises(Invalid, match=r"sink\.stream"):
        await nats.account.check_sink(make_watcher("A B"))


async def test_a_dry_look_without_a_server_or_jetstream_is_unavailable(
    own_nats: NatsServer, make_nats: MakeNats, connect: Connect, watcher: Watcher
) -> None:
    await own_nats.stop()
    for url, words in ((own_nats.url, "connection refused"), ((await make_nats(jetstream=False)).url, "with -js")):
        account = JetStream(await tried(connect(url)))
        with pytest.raises(Unavailable, match=words):
            await account.check_sink(watcher)
        with pytest.raises(SinkUnavailable, match=words):
            await account.sink(watcher).prepare(may_create=True)
