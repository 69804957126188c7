"""A watcher's stream made ready: created as it is asked for, switched over as far as allowed, or refused with why."""

import asyncio
from typing import Any

import pytest

from app.domain.errors import Conflict, NotAuthorised, OutcomeUnknown, StreamUnsuitable
from app.domain.watcher import Watcher
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import ConnectAccount
from tests.live import until
from tests.nats_account import Account, changes, ids, make_watcher, opened

pytestmark = pytest.mark.usefixtures("small_batches")


async def test_a_created_stream_is_as_the_watcher_wants_it(nats: Account, stream: str) -> None:
    watcher = make_watcher(stream, max_age_seconds=60, max_bytes=5_000_000, duplicate_window_seconds=600)
    await opened(nats, watcher)
    config = (await nats.api.info(stream)).config
    wanted = {
        "subjects": [f"{stream}.*"], "storage": "file", "num_replicas": 1,
        "allow_atomic": True, "allow_batched": True, "allow_direct": True,
        "max_age": 60 * 10**9, "max_bytes": 5_000_000, "duplicate_window": 60 * 10**9, "retention": "limits",
    }  # fmt: skip
    assert {name: config[name] for name in wanted} == wanted


async def test_of_an_existing_stream_only_the_switches_that_are_used_are_changed(
    nats: Account, watcher: Watcher
) -> None:
    """Fast ingest is not: the stream takes messages of others too."""
    before = await nats.create(
        watcher.sink.stream, subjects=[f"{watcher.sink.stream}.>", "more.x"], max_msgs=12345, max_age=3600 * 10**9,
        max_bytes=10**8, max_msgs_per_subject=7777, description="ours", metadata={"team": "a"}, compression="s2",
        allow_rollup_hdrs=True, deny_delete=True, republish={"src": "more.x", "dest": "again.x"},
        duplicate_window=10**9,        allow_msg_ttl=True, subject_delete_marker_ttl=10**10, allow_msg_schedules=True,
    )  # fmt: skip
    await opened(nats, watcher)
    after = (await nats.api.info(watcher.sink.stream)).config

    def others(config: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in config.items() if k not in ("allow_atomic", "allow_direct", "metadata")}
        return kept | {"metadata": {k: v for k, v in config["metadata"].items() if not k.startswith("_nats.")}}

    assert others(after) == others(before)
    assert after["allow_atomic"]
    assert after["allow_direct"]
    assert after["max_msgs_per_subject"] == 7777


async def test_an_account_that_may_not_create_streams_is_not_authorised(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    permissions = '{publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}'
    server = await make_nats(
        config=f"authorization {{ users: [{{user: a, password: b, permissions: {permissions}}}] }}"
    )
    account = await connect_account(server.url, user="a", password="b")
    with pytest.raises(NotAuthorised, match="CREATE"):
        await account.account.sink(watcher).prepare(may_create=True)
    assert await account.api.names(">") == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"subjects": ["{}.insert"]}, "does not take the watcher's subjects"),
        ({"no_ack": True}, "no_ack"),
        ({"allow_msg_counter": True}, "counters"),
        ({"subject_transform": {"src": "{}.*", "dest": "{}.x.{{{{wildcard(1)}}}}"}}, "subject_transform"),
    ],
)
async def test_a_stream_that_cannot_carry_the_watcher_says_why(
    nats: Account, watcher: Watcher, config: dict[str, Any], words: str
) -> None:
    def named(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(watcher.sink.stream)
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items()}
        return [named(inner) for inner in value] if isinstance(value, list) else value

    before = await nats.create(watcher.sink.stream, **named(config))
    with pytest.raises(StreamUnsuitable, match=words):
        await nats.account.sink(watcher).prepare(may_create=True)
    with pytest.raises(Conflict, match=words):
        await nats.account.check_sink(watcher)
    assert (await nats.api.info(watcher.sink.stream)).config == before


async def test_a_mirror_cannot_be_published_to(nats: Account, watcher: Watcher, unique: str) -> None:
    await nats.create(f"ORIGIN_{unique}")
    mirror = {"name": watcher.sink.stream, "mirror": {"name": f"ORIGIN_{unique}"}, "storage": "file"}
    before = (await nats.api.create(mirror)).config
    with pytest.raises(StreamUnsuitable, match="mirror"):
        await nats.account.sink(watcher).prepare(may_create=True)
    with pytest.raises(Conflict, match="mirror"):
        await nats.account.check_sink(watcher)
    assert (await nats.api.info(watcher.sink.stream)).config == before


async def test_a_stream_with_sources_is_fenced_by_subject(nats: Account, watcher: Watcher, unique: str) -> None:
    """What the stream takes from another one moves its last sequence, and not the watcher's."""
    stream = watcher.sink.stream
    await nats.create(f"ORIGIN_{unique}")
    await nats.create(stream, sources=[{"name": f"ORIGIN_{unique}"}])
    sink, fence = await opened(nats, watcher)
    assert not sink.exclusive
    fence = await sink.publish(changes(1, 4), fence)
    await nats.connection.request(f"ORIGIN_{unique}.insert", b"theirs")

    async def taken() -> bool:
        return int((await nats.api.info(stream)).state["last_seq"]) == 4

    await until(taken)
    assert await sink.publish(changes(4, 6), fence) == 6
    assert await nats.ids(stream) == [*ids(1, 4), None, *ids(4, 6)]


async def test_more_replicas_than_servers_are_unsuitable_in_the_servers_words(nats: Account, stream: str) -> None:
    with pytest.raises(StreamUnsuitable, match="replicas > 1 not supported"):
        await nats.account.sink(make_watcher(stream, replicas=3)).prepare(may_create=True)
    assert await nats.api.names(f"{stream}.*") == []


async def test_subjects_that_another_stream_has_name_that_stream(nats: Account, stream: str) -> None:
    await nats.create(f"{stream}_OTHER", subjects=[f"{stream}.update"])
    watcher = make_watcher(stream)
    with pytest.raises(StreamUnsuitable, match=f"{stream}_OTHER"):
        await nats.account.sink(watcher).prepare(may_create=True)
    with pytest.raises(Conflict, match=f"{stream}_OTHER"):
        await nats.account.check_sink(watcher)
    assert await nats.api.names(f"{stream}.*") == [f"{stream}_OTHER"]


async def test_instances_that_create_the_stream_at_once_all_have_it_and_one_of_them_publishes(
    nats: Account, watcher: Watcher
) -> None:
    sinks = [nats.account.sink(watcher) for _ in range(8)]
    await asyncio.gather(*(sink.prepare(may_create=True) for sink in sinks))
    assert {(sink.mode, sink.exclusive) for sink in sinks} == {("fast_ingest", True)}
    outcomes = await asyncio.gather(*(sink.publish(changes(1, 4), 0) for sink in sinks), return_exceptions=True)
    assert sum(outcome == 3 for outcome in outcomes) == 1
    assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes if outcome != 3)
    assert await nats.ids(watcher.sink.stream) == ids(1, 4)
