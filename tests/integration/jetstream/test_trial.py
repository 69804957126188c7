"""What NATS would refuse to create is refused before a watcher is taken on, and the trial leaves nothing behind."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from app.domain.errors import Conflict, Invalid
from app.domain.watcher import Watcher, from_document
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import ConnectAccount

ACCOUNTS = """accounts {
  FEW: { jetstream: {max_streams: 1}, users: [{user: few, password: x}] }
  TOLD: { jetstream: {max_bytes: true}, users: [{user: told, password: x}] }
  SMALL: { jetstream: {max_file: 1000000, store_max_stream_bytes: 10000}, users: [{user: small, password: x}] }
  BOUND: { jetstream: {max_streams: 9}, users: [
    {user: named, password: x, permissions: {publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}},
    {user: keeper, password: x, permissions: {publish: {deny: ["$JS.API.STREAM.DELETE.>"]}}},
  ] }
}"""


def watcher(**sink: Any) -> Watcher:
    return from_document({"name": "w", "source": {"database": "shop", "collection": "orders"}, "sink": sink})


@pytest.mark.parametrize(
    ("sink", "field", "words"),
    [
        ({"replicas": 3}, "sink.replicas", "non-clustered"),
        ({"max_age_seconds": 0.05}, "sink.max_age_seconds", "100ms"),
        ({"duplicate_window_seconds": 0.05}, "sink.duplicate_window_seconds", "100ms"),
        ({"max_bytes": 20_000_000}, "sink.max_bytes", "10047"),
    ],
)
async def test_what_the_server_would_refuse_is_refused_on_its_field(
    make_nats: MakeNats, connect_account: ConnectAccount, sink: dict[str, Any], field: str, words: str
) -> None:
    nats = await connect_account((await make_nats(store_limit=10_000_000)).url)
    with pytest.raises(Invalid, match=words) as refused:
        await nats.account.check_sink(watcher(**sink))
    assert [problem.field for problem in refused.value.problems] == [field]
    await nats.account.check_sink(watcher(max_age_seconds=60, max_bytes=9_000_000))
    assert await nats.api.names(">") == []


async def test_what_the_account_may_not_have_is_refused_on_its_field(
    make_nats: MakeNats, connect_account: ConnectAccount
) -> None:
    url = (await make_nats(config=ACCOUNTS)).url
    few = await connect_account(url, user="few", password="x")
    await few.account.check_sink(watcher())
    await few.api.create({"name": "OTHER", "subjects": ["other"], "storage": "file"})
    told = await connect_account(url, user="told", password="x")
    small = await connect_account(url, user="small", password="x")
    for account, asked, field, words in (
        (few, watcher(), "sink.stream", "maximum number of streams"),
        (told, watcher(), "sink.max_bytes", "max bytes set"),
        (small, watcher(max_bytes=20_000), "sink.max_bytes", "10122"),
        (small, watcher(max_bytes=2_000_000), "sink.max_bytes", "10047"),
    ):
        with pytest.raises(Invalid, match=words) as refused:
            await account.account.check_sink(asked)
        assert [problem.field for problem in refused.value.problems] == [field]
    await told.account.check_sink(watcher(max_bytes=1000))
    assert await few.api.names(">") == ["OTHER"]


async def test_an_account_that_may_not_try_is_left_to_the_first_opening(
    make_nats: MakeNats, connect_account: ConnectAccount
) -> None:
    url = (await make_nats(config=ACCOUNTS)).url
    for user in ("named", "keeper"):
        nats = await connect_account(url, user=user, password="x")
        with capture_logs() as logs:
            await nats.account.check_sink(watcher(replicas=3, max_bytes=1000))
        assert await nats.api.names(">") == []
        assert not [entry for entry in logs if entry["event"] == "trial_stream_left_behind"]


async def test_a_sealed_stream_is_refused(make_nats: MakeNats, connect_account: ConnectAccount) -> None:
    nats = await connect_account((await make_nats()).url)
    stream = await nats.api.create({"name": "ORDERS", "subjects": ["ORDERS.*"], "storage": "file"})
    await nats.api.update({**stream.config, "sealed": True})
    with pytest.raises(Conflict, match="sealed"):
        await nats.account.check_sink(watcher())
