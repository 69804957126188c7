"""The JetStream adapter against what real servers do: full, sealed and foreign streams, restricted accounts, death.

What every sink has to do is in `tests/contract/test_sink_contract.py`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.devservers.servers import Launch, NatsServer
from app.domain.buckets import bucket_of, stream_of
from app.domain.errors import (
    Conflict,
    Invalid,
    NotAuthorised,
    OutcomeUnknown,
    SinkUnavailable,
    StreamRefused,
    StreamUnsuitable,
    Unavailable,
)
from app.domain.events import Change
from app.domain.position import OwnMessage
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher, from_document
from app.jetstream import frames, lookback
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import ApiError
from app.jetstream.sink import JetStreamSink
from app.jetstream.stream_api import StreamApi
from tests.fakes import event_token

MakeNats = Callable[..., Awaitable[NatsServer]]
USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>", "*.delete"]}}}
] }
"""


class Account:
    """A connection, its account and the API, for one user."""

    def __init__(self, url: str, **options: Any) -> None:
        self.connection = NatsConnection(NatsOptions((url,), **options))
        self.account = JetStream(self.connection)
        self.api = StreamApi(self.connection)
        self.connection.start()

    async def create(self, name: str, **config: Any) -> dict[str, Any]:
        config = {"name": name, "subjects": [f"{name}.*"], "storage": "file", "num_replicas": 1, **config}
        return (await self.api.create(config)).config

    async def ids(self, name: str) -> list[str | None]:
        state = (await self.api.info(name)).state
        found = [await self.api.at(name, sequence) for sequence in range(state["first_seq"], state["last_seq"] + 1)]
        return [message.id for message in found if message is not None]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two are atomic ones here."""
    monkeypatch.setattr("app.jetstream.publish.atomic.FEW", 1)


@pytest_asyncio.fixture
async def nats(nats_url: str) -> AsyncIterator[Account]:
    account = Account(nats_url)
    await account.connection.ready(5)
    yield account
    await account.connection.close()


@pytest_asyncio.fixture
async def admin_and_limited(make_nats: MakeNats) -> AsyncIterator[tuple[Account, Account]]:
    server = await make_nats(config=USERS)
    accounts = tuple(Account(server.url, user=user, password="secret") for user in ("admin", "limited"))
    for account in accounts:
        await account.connection.ready(5)
    yield accounts[0], accounts[1]
    for account in accounts:
        await account.connection.close()


async def until_left(mark: int, left: list[int], *writers: asyncio.Task[None]) -> None:
    """Wait until no more than `mark` changes are left, or fail with the writer that failed."""
    while left[0] > mark:
        for writer in writers:
            if writer.done():
                writer.result()
        await asyncio.sleep(0.001)


async def up(account: Account) -> None:
    """Wait until the account's server answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await account.account.ping()
            except SinkUnavailable:
                await asyncio.sleep(0.05)


def make_watcher(stream: str, **sink: Any) -> Watcher:
    source = {"database": "shop", "collection": "orders"}
    return from_document({"name": "orders", "source": source, "sink": {"stream": stream, **sink}})


@pytest.fixture
def watcher(stream: str) -> Watcher:
    return make_watcher(stream)


def changes(begin: int, end: int, operation: str = "insert", size: int = 10) -> list[Change]:
    tokens = [event_token(moment) for moment in range(begin, end)]
    return [Change(token, operation, b"x" * size, 0.0, token) for token in tokens]


async def opened(account: Account, watcher: Watcher) -> tuple[JetStreamSink, int]:
    sink = account.account.sink(watcher)
    assert isinstance(sink, JetStreamSink)
    await sink.prepare(may_create=True)
    return sink, (await sink.tail()).fence(exclusive=sink.exclusive)


async def relay(sink: JetStreamSink, waiting: Sequence[Change], size: int = 50, left: list[int] | None = None) -> None:
    """The protocol in small, with a server that comes and goes; `left` gets how many changes are left."""
    sequence = -1
    while waiting:
        if left is not None:
            left[:] = [len(waiting)]
        try:
            if sequence < 0:
                tail = await sink.tail()
                position = tail.own.id.position if tail.own else ""
                waiting = [one for one in waiting if one.token > position]
                sequence = tail.fence(exclusive=sink.exclusive)
                continue
            sequence = await sink.publish(waiting[:size], sequence)
            waiting = waiting[size:]
        except OutcomeUnknown:
            sequence = -1
        except SinkUnavailable:
            sequence = -1
            await asyncio.sleep(0.05)
    if left is not None:
        left[:] = [0]


# Streams: finding, creating, switching on


async def test_a_created_stream_is_as_the_watcher_wants_it(nats: Account, stream: str) -> None:
    watcher = make_watcher(stream, max_age_seconds=60, max_bytes=5_000_000, duplicate_window_seconds=600)
    await opened(nats, watcher)
    config = (await nats.api.info(stream)).config
    wanted = {
        "subjects": [f"{stream}.*"], "storage": "file", "allow_atomic": True, "allow_direct": True, "num_replicas": 1,
        "max_age": 60 * 10**9, "max_bytes": 5_000_000, "duplicate_window": 60 * 10**9, "retention": "limits",
    }  # fmt: skip
    assert {name: config[name] for name in wanted} == wanted


async def test_of_an_existing_stream_only_the_two_switches_are_changed(nats: Account, watcher: Watcher) -> None:
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


async def test_a_stream_that_may_not_be_updated_is_written_in_a_window(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream)
    sink, fence = await opened(limited, watcher)
    assert (sink.mode, sink.exclusive) == ("window", True)
    assert await sink.publish(changes(1, 400), fence) == 399
    assert await admin.ids(watcher.sink.stream) == [event_token(moment) for moment in range(1, 400)]


async def test_a_subject_that_the_account_may_not_publish_to_is_not_waited_for(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    for atomic in (True, False):
        await admin.create(watcher.sink.stream, allow_atomic=atomic)
        sink, fence = await opened(limited, watcher)
        async with asyncio.timeout(3):
            with pytest.raises(NotAuthorised, match=f"{watcher.sink.stream}.delete"):
                await sink.publish(changes(1, 2) + changes(2, 4, "delete"), fence)
            with pytest.raises(NotAuthorised):
                await sink.publish(changes(9, 10, "delete"), (await sink.tail()).last_sequence)
        await admin.api.call(f"STREAM.DELETE.{watcher.sink.stream}")


async def test_an_account_that_may_not_create_streams_is_not_authorised(make_nats: MakeNats, watcher: Watcher) -> None:
    permissions = '{publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}'
    server = await make_nats(
        config=f"authorization {{ users: [{{user: a, password: b, permissions: {permissions}}}] }}"
    )
    account = Account(server.url, user="a", password="b")
    await account.connection.ready(5)
    with pytest.raises(NotAuthorised, match="CREATE"):
        await account.account.sink(watcher).prepare(may_create=True)
    await account.connection.close()


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
    await nats.api.create({"name": watcher.sink.stream, "mirror": {"name": f"ORIGIN_{unique}"}, "storage": "file"})
    with pytest.raises(StreamUnsuitable, match="mirror"):
        await nats.account.sink(watcher).prepare(may_create=True)


async def test_a_stream_with_sources_is_fenced_by_subject(nats: Account, watcher: Watcher, unique: str) -> None:
    await nats.create(f"ORIGIN_{unique}")
    await nats.create(watcher.sink.stream, sources=[{"name": f"ORIGIN_{unique}"}])
    sink, fence = await opened(nats, watcher)
    assert not sink.exclusive
    await sink.publish(changes(1, 4), fence)


async def test_more_replicas_than_servers_are_unsuitable_in_the_servers_words(nats: Account, stream: str) -> None:
    with pytest.raises(StreamUnsuitable, match="replicas > 1 not supported"):
        await nats.account.sink(make_watcher(stream, replicas=3)).prepare(may_create=True)


async def test_subjects_that_another_stream_has_name_that_stream(nats: Account, stream: str) -> None:
    await nats.create(f"{stream}_OTHER", subjects=[f"{stream}.update"])
    watcher = make_watcher(stream)
    with pytest.raises(StreamUnsuitable, match=f"{stream}_OTHER"):
        await nats.account.sink(watcher).prepare(may_create=True)
    with pytest.raises(Conflict, match=f"{stream}_OTHER"):
        await nats.account.check_sink(watcher)


async def test_two_instances_that_create_the_stream_at_once_both_have_it(nats: Account, watcher: Watcher) -> None:
    await asyncio.gather(*(nats.account.sink(watcher).prepare(may_create=True) for _ in range(8)))


# check_sink: a look that changes nothing


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
    own_nats: NatsServer, make_nats: MakeNats, watcher: Watcher
) -> None:
    await own_nats.stop()
    for url, words in ((own_nats.url, "connection refused"), ((await make_nats(jetstream=False)).url, "with -js")):
        account = Account(url)
        with pytest.raises(Unavailable, match=words):
            await account.account.check_sink(watcher)
        with pytest.raises(SinkUnavailable, match=words):
            await account.account.sink(watcher).prepare(may_create=True)
        await account.connection.close()


# Streams that refuse


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("atomic", [True, False])
async def test_a_full_stream_refuses_in_the_servers_words_and_takes_more_when_there_is_room(
    admin_and_limited: tuple[Account, Account], watcher: Watcher, atomic: bool, size: int
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream, allow_atomic=atomic, discard="new", max_msgs=10)
    sink, fence = await opened(limited, watcher)
    fence = await sink.publish(changes(1, 11), fence)
    with pytest.raises(StreamRefused, match="maximum messages"):
        await sink.publish(changes(11, 11 + size), fence)
    assert len(await admin.ids(watcher.sink.stream)) == 10
    await admin.api.call(f"STREAM.PURGE.{watcher.sink.stream}")
    await sink.publish(changes(11, 11 + size), (await sink.tail()).fence(exclusive=sink.exclusive))


async def test_a_stream_that_fills_up_within_a_window_leaves_an_unknown_outcome(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream, discard="new", max_msgs=10)
    sink, fence = await opened(limited, watcher)
    with pytest.raises(OutcomeUnknown, match="full"):
        await sink.publish(changes(1, 20), fence)
    tail = await sink.tail()
    assert tail.own is not None
    assert tail.own.id.position == event_token(10)


async def test_a_sealed_stream_refuses(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    fence = await sink.publish(changes(1, 3), fence)
    config = (await nats.api.info(watcher.sink.stream)).config
    await nats.api.update({**config, "sealed": True})
    for batch in (changes(3, 4), changes(3, 6)):
        with pytest.raises(StreamRefused, match="sealed"):
            await sink.publish(batch, fence)
    with pytest.raises(StreamRefused, match="sealed"):
        await sink.prepare(may_create=True)


async def test_atomic_publishing_switched_off_while_running_is_refused_until_prepared_anew(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream, allow_atomic=True)
    sink, fence = await opened(limited, watcher)
    modes = [sink.mode]
    config = (await admin.api.info(watcher.sink.stream)).config
    await admin.api.update({**config, "allow_atomic": False})
    with pytest.raises(StreamRefused, match="switched off"):
        await sink.publish(changes(1, 4), fence)
    await sink.prepare(may_create=False)
    assert [*modes, sink.mode] == ["atomic", "window"]
    assert await sink.publish(changes(1, 4), fence) == 3


async def test_subjects_added_while_running_change_the_fence_at_the_next_look(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 4), fence)
    config = (await nats.api.info(watcher.sink.stream)).config
    neighbour = f"neighbour.{watcher.sink.stream}"
    await nats.api.update({**config, "subjects": [*config["subjects"], neighbour]})
    assert await nats.connection.request(neighbour, b"x")
    tail = await sink.tail()
    assert not sink.exclusive
    assert (tail.last_sequence, tail.fence(exclusive=sink.exclusive)) == (4, 3)
    assert await sink.publish(changes(4, 6), 3) == 6


async def test_expired_messages_leave_the_last_sequence(nats: Account, stream: str) -> None:
    watcher = make_watcher(stream, max_age_seconds=0.2, duplicate_window_seconds=0.1)
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 4), fence)
    async with asyncio.timeout(10):
        while (tail := await sink.tail()).space_sequence:
            await asyncio.sleep(0.05)
    assert (tail.own, tail.fence(exclusive=sink.exclusive)) == (None, 3)
    assert await sink.publish(changes(4, 6), 3) == 5


async def test_neighbours_on_a_shared_stream_do_not_disturb(nats: Account, watcher: Watcher) -> None:
    neighbour = f"neighbour.{watcher.sink.stream}"
    await nats.create(watcher.sink.stream, subjects=[watcher.space, neighbour])
    sink, _ = await opened(nats, watcher)
    busy = True

    async def disturb() -> int:
        count = 0
        while busy:
            assert await nats.connection.request(neighbour, b"x")
            count += 1
        return count

    noise = asyncio.create_task(disturb(), name="noise")
    await relay(sink, changes(1, 501), size=20)
    busy = False
    assert await noise > 0
    ours = [id_ for id_ in await nats.ids(watcher.sink.stream) if id_]
    assert ours == [event_token(moment) for moment in range(1, 501)]


# Reading back behind others


async def test_a_look_back_is_bounded_and_says_so(
    nats: Account, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "LOOK_BACK", 100)
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 3), fence)
    for _ in range(150):
        await nats.connection.request(f"{watcher.sink.stream}.insert", b"foreign")
    tail = await sink.tail()
    assert tail.unsearched
    assert tail.own is None
    assert 100 <= tail.foreign < 150
    assert not (await sink.tail(since=60)).unsearched


async def test_what_neighbours_publish_costs_a_look_back_nothing(
    nats: Account, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of ours is found behind thousands of messages on other subjects, and some on ours."""
    monkeypatch.setattr(lookback, "LOOK_BACK", 200)
    neighbour = f"neighbour.{watcher.sink.stream}"
    await nats.create(watcher.sink.stream, subjects=[watcher.space, neighbour])
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 4), fence)
    for subject, count in ((watcher.subject("insert"), 80), (neighbour, 3000), (watcher.subject("insert"), 70)):
        await asyncio.gather(*(nats.connection.request(subject, b"x") for _ in range(count)))
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.sequence, tail.foreign, tail.unsearched) == (3, 150, False)


async def test_foreign_messages_on_other_subjects_are_stepped_over_however_many(
    nats: Account, watcher: Watcher
) -> None:
    sink, fence = await opened(nats, watcher)
    await sink.publish([*changes(1, 2), *changes(2, 3, "delete")], fence)
    for _ in range(150):
        await nats.connection.request(f"{watcher.sink.stream}.somebody", b"foreign")
    tail = await sink.tail()
    assert not tail.unsearched
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence, tail.space_sequence) == (event_token(2), 2, 152)


@pytest.mark.parametrize("ours_after_all", [False, True])
async def test_a_message_that_takes_the_place_of_one_in_a_window_is_found_out(
    admin_and_limited: tuple[Account, Account], watcher: Watcher, monkeypatch: pytest.MonkeyPatch, ours_after_all: bool
) -> None:
    """The race: another writer's message lands between two of a window, so that those behind it pass the fence.

    It is harmless where it is the very change that belongs there (a second instance), and a loss otherwise.
    """
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream)
    sink, fence = await opened(limited, watcher)
    real = frames.window
    place = 5

    def disturbed(batch: Sequence[Change], subjects: Any, reply: str, stream: str, base: int) -> Iterator[bytes]:
        yield from real(batch[:place], subjects, reply, stream, base)
        other = batch[place] if ours_after_all else Change("", "insert", b"foreign", 0.0, "foreign")
        yield frames.single(other, f"{stream}.insert", "nowhere.x", "")
        for index, change in enumerate(batch[place:], place):
            lines = f"Nats-Expected-Last-Sequence: {base + index}\r\n"
            yield frames.single(change, subjects[change.operation], f"{reply}{index}", lines)

    monkeypatch.setattr(frames, "window", disturbed)
    with pytest.raises(OutcomeUnknown) as unknown:
        await sink.publish(changes(1, 21), fence)
    tail = await sink.tail()
    assert tail.own is not None
    assert tail.own.id.position == event_token(20)
    token = event_token(place + 2)
    assert unknown.value.doubts == ((place + 2, token),)
    assert await sink.holds(OwnMessage(place + 2, MessageId(token))) is ours_after_all
    if ours_after_all:
        assert await admin.ids(watcher.sink.stream) == [event_token(moment) for moment in range(1, 21)]


async def test_after_a_foreign_message_changes_go_out_one_by_one(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream)
    sink, fence = await opened(limited, watcher)
    await sink.publish(changes(1, 3), fence)
    await admin.connection.request(watcher.subject("insert"), b"foreign")
    fence = (await sink.tail()).fence(exclusive=sink.exclusive)
    assert (sink.mode, sink.exclusive) == ("single", True)
    await sink.publish(changes(3, 6), fence)
    await sink.tail()
    assert sink.mode == "single"


# Servers that die


@pytest.mark.parametrize("atomic", [True, False])
async def test_killed_while_publishing_each_change_is_there_once_in_order(
    make_nats: MakeNats, stream: str, atomic: bool
) -> None:
    server = await make_nats(config=USERS)
    admin, limited = (Account(server.url, user=user, password="secret") for user in ("admin", "limited"))
    await up(admin)
    await up(limited)
    await admin.create(stream, allow_atomic=atomic, duplicate_window=100_000_000)
    sink, _ = await opened(limited, make_watcher(stream))
    batch = changes(1, 8001, size=1000)
    left = [len(batch)]
    work = asyncio.create_task(relay(sink, batch, size=200, left=left), name="relay")
    for mark in (6500, 5000, 2500, 1000):
        await until_left(mark, left, work)
        server.kill()
        await server.start()
    await asyncio.wait_for(work, 60)
    await up(admin)
    assert await admin.ids(stream) == [change.id for change in batch]
    await limited.connection.close()
    await admin.connection.close()


async def test_a_frozen_server_makes_an_unknown_outcome_long_before_the_deadline(
    own_nats: NatsServer, watcher: Watcher
) -> None:
    account = Account(own_nats.url)
    await account.connection.ready(5)
    sink, fence = await opened(account, watcher)
    own_nats.freeze()
    try:
        async with asyncio.timeout(12):
            with pytest.raises(OutcomeUnknown):
                await sink.publish(changes(1, 500, size=8000), fence)  # deadline: 85 s
        with pytest.raises(SinkUnavailable):
            await sink.publish(changes(1, 500), fence)
    finally:
        own_nats.thaw()
    await up(account)
    await relay(sink, changes(1, 500, size=8000), size=500)
    assert await account.ids(watcher.sink.stream) == [event_token(moment) for moment in range(1, 500)]
    await account.connection.close()


# Sizes


async def test_the_streams_own_size_limit_counts_too(nats: Account, watcher: Watcher) -> None:
    await nats.create(watcher.sink.stream, max_msg_size=5000)
    sink, fence = await opened(nats, watcher)
    fits = max(size for size in range(3000, 5001) if not sink.too_large(changes(1, 2, size=size)[0]))
    assert await sink.publish(changes(1, 4, size=fits), fence) == 3
    assert sink.too_large(changes(1, 2, size=fits + 1)[0])


async def test_max_payload_is_the_servers(make_nats: MakeNats, watcher: Watcher) -> None:
    account = Account((await make_nats(max_payload=20_000)).url)
    await account.connection.ready(5)
    sink, fence = await opened(account, watcher)
    fits = max(size for size in range(15_000, 20_001) if not sink.too_large(changes(1, 2, size=size)[0]))
    headers = (("Changewire-Reduced", "x" * 500),)
    assert sink.too_large(replace(changes(1, 2, size=fits)[0], headers=headers))
    assert await sink.publish(changes(1, 4, size=fits), fence) == 3
    large = replace(changes(4, 5, size=300_000)[0], pointer=b"{}")
    pointer = await sink.claim_check(large, b"{}")
    assert await sink.publish([pointer], 3) == 4
    await account.connection.close()


async def test_a_claim_check_can_be_redeemed(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    body = os.urandom(2_500_000)
    change = replace(changes(1, 2)[0], body=body)
    pointer = await sink.claim_check(change, b'{"reduced":true}')
    await sink.publish([pointer], fence)
    name, _, object_ = pointer.headers[0][1].partition("/")
    assert stream_of(name) == watcher.sink.stream
    assert object_ == change.token
    store = await nats.connection.client().jetstream().object_store(name)
    assert (await store.get(object_)).data == body


@pytest.mark.parametrize("name", ["ORDERS", "A_B", "A__B", "_", "é_x", "x_é", "%24a", "a-b", "ü$%_41", "A_41"])
def test_a_buckets_name_is_valid_and_gives_the_streams_back(name: str) -> None:
    bucket = bucket_of(name)
    assert bucket.replace("_", "").replace("-", "").isalnum() or set(bucket) == {"_"}
    assert bucket.isascii()
    assert stream_of(bucket) == name


# Older servers


@pytest.fixture
def older_server() -> Path:
    path = os.environ.get("CHANGEWIRE_TEST_NATS_211")
    if not path:
        pytest.skip("CHANGEWIRE_TEST_NATS_211 does not name a nats-server of 2.11")
    return Path(path)


async def test_a_server_without_atomic_batches_is_written_in_windows_and_survives_its_death(
    make_nats: MakeNats, older_server: Path, watcher: Watcher
) -> None:
    server = await make_nats(launch=Launch(binary=older_server))
    account = Account(server.url)
    await account.connection.ready(5)
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.exclusive) == ("window", True)
    batch = changes(1, 10_001, size=500)
    left = [len(batch)]
    writers = [asyncio.create_task(relay(sink, batch, size=200, left=left), name="relay")]
    other, _ = await opened(account, watcher)
    writers.append(asyncio.create_task(relay(other, batch, size=130), name="zombie"))
    for mark in (7000, 3000):
        await until_left(mark, left, *writers)
        server.kill()
        await server.start()
    await asyncio.wait_for(asyncio.gather(*writers), 60)
    await up(account)
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]
    await account.connection.close()


async def test_a_shared_stream_on_an_older_server_is_written_one_by_one(
    make_nats: MakeNats, older_server: Path, watcher: Watcher
) -> None:
    account = Account((await make_nats(launch=Launch(binary=older_server))).url)
    await account.connection.ready(5)
    await account.create(watcher.sink.stream, subjects=[watcher.space, f"neighbour.{watcher.sink.stream}"])
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.exclusive) == ("single", False)
    other, _ = await opened(account, watcher)
    batch = changes(1, 301)
    await asyncio.gather(relay(sink, batch, size=20), relay(other, batch, size=7))
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]
    await account.connection.close()
