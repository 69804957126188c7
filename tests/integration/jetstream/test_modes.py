"""The publish mode that is chosen on real servers: what is switched on, what is refused, and what changes meanwhile."""

from pathlib import Path
from typing import Any

import pytest

from app.devservers.servers import Launch
from app.domain.errors import OutcomeUnknown, StreamRefused
from app.domain.watcher import Watcher
from app.jetstream import provisioning
from app.jetstream.errors import ApiError
from app.jetstream.sink import JetStreamSink
from app.jetstream.stream_api import StreamApi, headers_of
from app.jetstream.streams import new_config
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import ConnectAccount
from tests.nats_account import Account, changes, ids, make_watcher, opened

NARROW = """
authorization { users: [
  {user: admin, password: secret},
  {user: narrow, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.INFO.>", "$JS.API.STREAM.UPDATE.>"]}}}
] }
"""
"""The user `narrow` may neither look at a stream nor change it: what mongodb-nats-connector needs, and no more."""


def said(sink: JetStreamSink) -> str:
    assert sink.slower is not None
    return sink.slower


async def set_up(account: Account, name: str, **config: Any) -> None:
    """Change a stream's settings by hand."""
    await account.api.update({**(await account.api.info(name)).config, **config})


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings with which an update was asked for by Changewire."""
    asked: list[dict[str, Any]] = []
    real = StreamApi.update

    async def update(api: StreamApi, config: dict[str, Any]) -> Any:
        asked.append(config)
        return await real(api, config)

    monkeypatch.setattr(StreamApi, "update", update)
    return asked


async def test_a_stream_of_the_watchers_own_is_published_to_by_fast_ingest(nats: Account, watcher: Watcher) -> None:
    for exists in (False, True):
        if exists:
            await nats.api.delete(watcher.sink.stream)
            await nats.create(watcher.sink.stream)
        sink, fence = await opened(nats, watcher)
        assert (sink.mode, sink.exclusive, sink.slower) == ("fast_ingest", True, None)
        assert await sink.publish(changes(1, 30), fence) == 29
        assert await nats.ids(watcher.sink.stream) == ids(1, 30)


async def test_a_message_carries_its_fence_and_nothing_else_that_is_new(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 3), fence)
    message = await nats.api.message(watcher.sink.stream, {"seq": 2})
    assert message is not None
    assert headers_of(message) == {
        "Nats-Msg-Id": ids(2, 3)[0],
        "Nats-Expected-Stream": watcher.sink.stream,
        "Nats-Expected-Last-Sequence": "1",
    }


async def test_a_shared_stream_is_published_to_in_atomic_batches_and_says_why(
    nats: Account, watcher: Watcher, updates: list[dict[str, Any]]
) -> None:
    name = watcher.sink.stream
    await nats.create(name, subjects=[f"{name}.>", f"more.{name}"])
    sink, _ = await opened(nats, watcher)
    assert (sink.mode, sink.exclusive) == ("atomic", False)
    assert f"more.{name}" in said(sink)
    assert "a stream of its own" in said(sink)
    assert "allow_batched" not in updates[0]


async def test_what_the_account_may_not_update_is_asked_for_once_a_minute(
    admin_and_limited: tuple[Account, Account],
    watcher: Watcher,
    updates: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin, limited = admin_and_limited
    name = watcher.sink.stream
    await admin.create(name, allow_atomic=True)
    for _ in range(3):
        sink, _ = await opened(limited, watcher)
        assert (sink.mode, sink.exclusive) == ("atomic", True)
        assert f"$JS.API.STREAM.UPDATE.{name}" in said(sink)
        assert f"nats stream edit {name} --allow-fast" in said(sink)
    assert len(updates) == 1
    await set_up(admin, name, max_msgs=1000)  # other settings: it may be allowed now
    updates.clear()
    for _ in range(2):
        await opened(limited, watcher)
    assert len(updates) == 1
    monkeypatch.setattr(provisioning, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(limited.account, "_switching", provisioning.Refusals())
    for _ in range(2):
        await opened(limited, watcher)
    assert len(updates) == 3
    await set_up(admin, name, allow_batched=True, allow_direct=True)
    sink, _ = await opened(limited, watcher)
    assert (sink.mode, sink.slower) == ("fast_ingest", None)


async def test_what_the_server_refuses_does_not_keep_the_rest_off(
    nats: Account, watcher: Watcher, updates: list[dict[str, Any]]
) -> None:
    """A stream that is written to the disk late takes no atomic batches."""
    await nats.create(watcher.sink.stream, persist_mode="async")
    await opened(nats, watcher)
    sink, fence = await opened(nats, watcher)
    assert (sink.mode, sink.slower) == ("fast_ingest", None)
    assert len(updates) == 4  # all at once, and each alone; the second opening asks for nothing
    config = (await nats.api.info(watcher.sink.stream)).config
    assert (config.get("allow_atomic"), config.get("allow_batched"), config.get("allow_direct")) == (None, True, True)
    assert await sink.publish(changes(1, 10), fence) == 9


async def test_a_stream_that_the_account_may_not_look_at_is_found_by_its_settings(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    """Also one that was created before there was fast ingest."""
    url = (await make_nats(config=NARROW)).url
    admin, narrow = [await connect_account(url, user=user, password="secret") for user in ("admin", "narrow")]
    sink, fence = await opened(narrow, watcher)
    assert sink.mode == "fast_ingest"
    assert await sink.publish(changes(1, 3), fence) == 2
    await admin.api.delete(watcher.sink.stream)
    await opened(admin, watcher)
    await set_up(admin, watcher.sink.stream, allow_batched=False)
    sink, fence = await opened(narrow, watcher)
    assert (sink.mode, sink.exclusive) == ("atomic", True)
    assert await sink.publish(changes(1, 3), fence) == 2


async def test_fast_ingest_switched_off_meanwhile_is_left_at_the_next_look(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    name = watcher.sink.stream
    await admin.create(name, allow_atomic=True, allow_batched=True, allow_direct=True)
    sink, fence = await opened(limited, watcher)
    modes: list[str] = [sink.mode]
    fence = await sink.publish(changes(1, 4), fence)
    await set_up(admin, name, allow_batched=False)
    with pytest.raises(StreamRefused, match="switched off"):
        await sink.publish(changes(4, 8), fence)
    assert (await sink.tail()).last_sequence == fence
    modes.append(sink.mode)
    assert "allow_batched is off" in said(sink)
    fence = await sink.publish(changes(4, 8), fence)
    await set_up(admin, name, allow_atomic=False)
    await sink.tail()
    modes.append(sink.mode)
    fence = await sink.publish(changes(8, 12), fence)
    await set_up(admin, name, allow_batched=True)
    await sink.tail()
    modes.append(sink.mode)
    await sink.publish(changes(12, 16), fence)
    assert modes == ["fast_ingest", "atomic", "window", "fast_ingest"]
    assert sink.slower is None
    assert await admin.ids(name) == ids(1, 16)


async def test_messages_that_go_when_they_are_consumed_leave_one_atomic_batch_under_way(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    """The place of a message cannot be looked at any more; fast ingest needs no such look."""
    admin, limited = admin_and_limited
    name = watcher.sink.stream
    for settings, remains in ({"allow_atomic": True}, False), ({"allow_batched": True}, True):
        await admin.create(name, **settings)
        sink, fence = await opened(limited, watcher)
        pipelined = [sink.pipelined]
        fence = await sink.publish(changes(1, 4), fence)
        await set_up(admin, name, retention="interest")
        await sink.tail()
        pipelined.append(sink.pipelined)
        assert pipelined == [True, remains]
        await sink.publish(changes(4, 8), fence)
        assert (await sink.tail()).last_sequence == 7
        await admin.api.delete(name)


async def test_a_stream_that_takes_other_subjects_meanwhile_is_fenced_by_the_watchers(
    nats: Account, watcher: Watcher
) -> None:
    name = watcher.sink.stream
    sink, fence = await opened(nats, watcher)
    fence = await sink.publish(changes(1, 4), fence)
    await set_up(nats, name, subjects=[f"{name}.*", f"more.{name}"])
    await nats.connection.request(f"more.{name}", b"theirs")
    with pytest.raises(OutcomeUnknown):
        await sink.publish(changes(4, 8), fence)
    fence = (await sink.tail()).fence(exclusive=sink.exclusive)
    assert (sink.mode, sink.exclusive) == ("atomic", False)
    await sink.publish(changes(4, 8), fence)
    assert await nats.ids(name) == [*ids(1, 4), None, *ids(4, 8)]


async def test_a_server_of_2_11_gets_no_settings_that_it_does_not_know(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher, older_server: Path,
    updates: list[dict[str, Any]],
) -> None:  # fmt: skip
    old = await connect_account((await make_nats(launch=Launch(binary=older_server))).url)
    await opened(old, watcher)
    sink, fence = await opened(old, watcher)
    assert (sink.mode, sink.exclusive) == ("window", True)
    assert "fast ingest from 2.14 on and atomic batches from 2.12 on, and this one is 2.11" in said(sink)
    await old.account.check_sink(watcher)
    assert await sink.publish(changes(1, 30), fence) == 29
    assert updates == []


async def test_a_setting_that_a_strict_server_does_not_know_is_left_out(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher, older_server: Path
) -> None:
    """A server from 2.12 on refuses what it does not know, and so does one of 2.11 that is told to be strict."""
    server = await make_nats(launch=Launch(binary=older_server), jetstream_config="strict: true")
    old = await connect_account(server.url)
    with pytest.raises(ApiError, match="unknown field"):
        await old.api.call(f"STREAM.CREATE.{watcher.sink.stream}", new_config(watcher))
    await old.account.check_sink(make_watcher(watcher.sink.stream, max_bytes=10**6))  # which creates one for the trial
    sink, fence = await opened(old, watcher)
    assert sink.mode == "window"
    assert await sink.publish(changes(1, 30), fence) == 29
