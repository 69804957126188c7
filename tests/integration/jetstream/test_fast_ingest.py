"""Several sends under way on a real server: what cuts an open batch, and that each change is there once, in order."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.devservers.servers import Launch, NatsServer
from app.domain.errors import NotAuthorised, OutcomeUnknown, SinkUnavailable, StreamRefused
from app.domain.events import Change
from app.domain.watcher import Watcher
from app.jetstream.sink import JetStreamSink
from tests.conftest import MakeNats
from tests.faults.proxy import Direction, Link, Proxy
from tests.integration.jetstream.conftest import USERS, ConnectAccount
from tests.nats_account import Account, changes, ids, opened, until_left, up
from tests.service import until

pytestmark = pytest.mark.usefixtures("impatient")


async def stream_on(sink: JetStreamSink, waiting: Sequence[Change], size: int, left: list[int]) -> None:
    """The protocol in small: send behind what is under way; after an error wait for all, read back, and go on."""
    while True:
        left[:] = [len(waiting)]
        try:
            tail = await sink.tail()
        except (SinkUnavailable, StreamRefused):
            await asyncio.sleep(0.05)
            continue
        position = tail.own.id.position if tail.own else ""
        waiting = [one for one in waiting if one.token > position]
        if not waiting:
            return
        fence, sent = tail.fence(exclusive=sink.exclusive), list[asyncio.Future[int]]()
        for begin in range(0, len(waiting), size):
            unit = waiting[begin : begin + size]
            await sink.ready(unit)
            if any(one.done() and one.exception() for one in sent):
                break
            sent.append(sink.send(unit, fence + begin, more=begin + size < len(waiting)))
            left[:] = [len(waiting) - begin]
        sink.settle()
        await asyncio.wait(sent)


async def test_the_server_is_killed_in_an_open_batch(
    own_nats: NatsServer, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    account = await connect_account(own_nats.url)
    await account.create(watcher.sink.stream, allow_batched=True, allow_atomic=True, duplicate_window=100_000_000)
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.pipelined) == ("fast_ingest", True)
    batch, left = changes(1, 10_001, size=1000), [10_000]
    work = asyncio.create_task(stream_on(sink, batch, 200, left), name="work")
    for mark in (8_000, 5_000, 2_000):
        await until_left(mark, left, work)
        own_nats.kill()
        await own_nats.start()
    await asyncio.wait_for(work, 60)
    await up(account)
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]


@pytest.mark.long
async def test_the_server_freezes_in_an_open_batch_for_longer_than_the_connection_is_kept(
    own_nats: NatsServer, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    account = await connect_account(own_nats.url)
    sink, _ = await opened(account, watcher)
    batch, left = changes(1, 8_001, size=1000), [8_000]
    work = asyncio.create_task(stream_on(sink, batch, 200, left), name="work")
    await until_left(5_000, left, work)
    own_nats.freeze()
    try:
        await until(lambda: not account.connection.server_version, "the connection is given up", within=20)
    finally:
        own_nats.thaw()
    await asyncio.wait_for(work, 60)
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]


@pytest.mark.parametrize("tear", [("up", 0.5), ("up", 1.0), ("down", 0.0)])
async def test_the_connection_is_reset_in_an_open_batch(
    nats_server: NatsServer, connect_account: ConnectAccount, watcher: Watcher, tear: tuple[Direction, float]
) -> None:
    link = Link()
    proxy = Proxy(link, lambda: nats_server.port)
    await proxy.listen()
    try:
        account = await connect_account(f"nats://127.0.0.1:{proxy.port}")
        sink, _ = await opened(account, watcher)
        batch, left = changes(1, 4_001, size=1000), [4_000]
        work = asyncio.create_task(stream_on(sink, batch, 100, left), name="work")
        for mark in (3_000, 2_000, 1_000):
            await until_left(mark, left, work)
            link.tear, link.tears = tear, 1
        await asyncio.wait_for(work, 60)
        await up(account)
        assert await account.ids(watcher.sink.stream) == [change.id for change in batch]
    finally:
        await proxy.close()


async def test_two_instances_on_connections_of_their_own_are_each_others_rivals(
    nats_url: str, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    batch = changes(1, 6_001, size=300)
    accounts = [await connect_account(nats_url) for _ in range(2)]
    await accounts[0].create(
        watcher.sink.stream, allow_batched=True, allow_atomic=True, allow_direct=True, duplicate_window=100_000_000
    )
    sinks = [(await opened(account, watcher))[0] for account in accounts]
    async with asyncio.timeout(60):
        await asyncio.gather(*(stream_on(sink, batch, size, [0]) for sink, size in zip(sinks, (70, 200), strict=True)))
    assert await accounts[0].ids(watcher.sink.stream) == [change.id for change in batch]


async def test_switched_off_in_an_open_batch_the_next_look_finds_another_mode(nats: Account, watcher: Watcher) -> None:
    sink, fence = await opened(nats, watcher)
    assert await sink.send(changes(1, 400), fence, more=True) == 399
    config = (await nats.api.info(watcher.sink.stream)).config
    await nats.api.update({**config, "allow_batched": False})
    await sink.ready(changes(400, 700))
    refused = sink.send(changes(400, 700), 399, more=True)
    sink.settle()
    with pytest.raises((OutcomeUnknown, StreamRefused), match=r"switched off|unknown"):
        await refused
    fence = (await sink.tail()).last_sequence
    assert (sink.mode, fence) == ("atomic", 399)
    assert await sink.send(changes(400, 700), fence, more=False) == 699
    assert await nats.ids(watcher.sink.stream) == ids(1, 700)


async def test_a_subject_that_may_not_be_published_to_ends_an_open_batch_before_it(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.ACK_SECONDS", 600.0)  # longer than a test may take
    server = await make_nats(config=USERS)
    admin, limited = [await connect_account(server.url, user=user, password="secret") for user in ("admin", "limited")]
    await admin.create(watcher.sink.stream, allow_batched=True, allow_atomic=True, allow_direct=True)
    sink, fence = await opened(limited, watcher)
    assert sink.mode == "fast_ingest"
    sends = [
        sink.send(changes(1, 50), fence, more=True),
        sink.send(changes(50, 60) + changes(60, 61, "delete") + changes(61, 80), fence + 49, more=True),
        sink.send(changes(80, 90), fence + 79, more=True),
    ]
    sink.settle()
    async with asyncio.timeout(30):
        await asyncio.wait(sends)
    errors = [one.exception() for one in sends]
    assert any(isinstance(error, NotAuthorised | OutcomeUnknown) for error in errors)
    assert errors[2] is not None

    async def stored() -> bool:
        return await admin.ids(watcher.sink.stream) == ids(1, 60)

    await until(stored, "the server stores what came before the one that it has refused")
    with pytest.raises(NotAuthorised, match=r"\.delete"):
        await sink.publish(changes(60, 61, "delete"), (await sink.tail()).last_sequence)


@pytest.mark.parametrize("disturbed", [False, True])
async def test_a_server_that_does_not_know_such_batches_stores_nothing_but_changes_and_each_place_is_looked_at(
    make_nats: MakeNats, older_server: Path, connect_account: ConnectAccount, watcher: Watcher, disturbed: bool
) -> None:
    account = await connect_account((await make_nats(launch=Launch(binary=older_server))).url)
    sink, fence = await opened(account, watcher)
    sink._mode = "fast_ingest"  # as of a stream whose server went back to an older version a moment ago
    batch = changes(1, 7)
    first = sink.send(batch[:3], fence, more=True)
    if disturbed:
        account.connection._require().send(f"PUB {watcher.subject('insert')} 7\r\nforeign\r\n".encode())
    second = sink.send(batch[3:], fence + 3, more=True)
    sink.settle()
    await asyncio.wait((first, second))
    error = first.exception()
    assert isinstance(error, OutcomeUnknown)
    assert dict(error.unsettled) == {place: change.id for place, change in enumerate(batch, 1)}
    assert isinstance(second.exception(), OutcomeUnknown)
    tail = await sink.tail()
    assert (tail.last_sequence, tail.foreign) == (6, 0)
    stored = [change.id for change in batch]
    assert await account.ids(watcher.sink.stream) == (stored if not disturbed else [*stored[:3], None, *stored[4:]])
