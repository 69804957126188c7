"""Publishing in each mode against what real servers do: rights, full and sealed streams, and others among a window.

What every mode has to do is in `tests/contract/sink/`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.devservers.servers import Launch
from app.domain.errors import NotAuthorised, OutcomeUnknown, StreamRefused
from app.domain.events import Change
from app.domain.position import OwnMessage
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher, from_document
from app.jetstream import frames
from tests.conftest import MakeNats
from tests.fakes import event_token
from tests.integration.jetstream.conftest import ConnectAccount
from tests.live import until
from tests.nats_account import Account, changes, ids, opened, relay

pytestmark = pytest.mark.usefixtures("small_batches")


async def test_a_stream_that_may_not_be_updated_is_written_in_a_window(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream)
    sink, fence = await opened(limited, watcher)
    assert (sink.mode, sink.exclusive) == ("window", True)
    assert await sink.publish(changes(1, 400), fence) == 399
    assert await admin.ids(watcher.sink.stream) == ids(1, 400)


async def test_a_subject_that_the_account_may_not_publish_to_is_not_waited_for(
    admin_and_limited: tuple[Account, Account], watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.sender.ACK_SECONDS", 600.0)  # longer than a test may take
    admin, limited = admin_and_limited
    for atomic in (True, False):
        await admin.create(watcher.sink.stream, allow_atomic=atomic)
        sink, fence = await opened(limited, watcher)
        async with asyncio.timeout(30):
            with pytest.raises(NotAuthorised, match=f"{watcher.sink.stream}.delete"):
                await sink.publish(changes(1, 2) + changes(2, 4, "delete"), fence)
            with pytest.raises(NotAuthorised):
                await sink.publish(changes(9, 10, "delete"), (await sink.tail()).last_sequence)
        stored = [] if atomic else ids(1, 2)

        async def there(stored: list[str] = stored) -> bool:
            return await admin.ids(watcher.sink.stream) == stored

        await until(there)
        await admin.api.delete(watcher.sink.stream)


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
    assert await admin.ids(watcher.sink.stream) == ids(1, 11)
    await admin.api.call(f"STREAM.PURGE.{watcher.sink.stream}")
    await sink.publish(changes(11, 11 + size), (await sink.tail()).fence(exclusive=sink.exclusive))
    assert await admin.ids(watcher.sink.stream) == ids(11, 11 + size)


async def test_a_stream_that_fills_up_within_a_window_leaves_an_unknown_outcome(
    admin_and_limited: tuple[Account, Account], watcher: Watcher
) -> None:
    admin, limited = admin_and_limited
    await admin.create(watcher.sink.stream, discard="new", max_msgs=10)
    sink, fence = await opened(limited, watcher)
    with pytest.raises(OutcomeUnknown, match="full") as unknown:
        await sink.publish(changes(1, 20), fence)
    assert (unknown.value.stored, unknown.value.sequence, unknown.value.unsettled) == (10, 10, ())
    assert await admin.ids(watcher.sink.stream) == ids(1, 11)


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
    assert await nats.ids(watcher.sink.stream) == ids(1, 3)


async def test_atomic_publishing_switched_off_while_running_is_refused_until_prepared_again(
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
    assert await admin.ids(watcher.sink.stream) == ids(1, 4)


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
    assert unknown.value.unsettled == ((place + 2, token),)
    assert await sink.holds(OwnMessage(place + 2, MessageId(token))) is ours_after_all
    if ours_after_all:
        assert await admin.ids(watcher.sink.stream) == ids(1, 21)


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
    assert await sink.publish(changes(3, 6), fence) == 6
    assert await admin.ids(watcher.sink.stream) == [*ids(1, 3), None, *ids(3, 6)]
    await sink.tail()
    assert sink.mode == "single"


async def test_a_shared_stream_on_an_older_server_is_written_one_by_one(
    make_nats: MakeNats, connect_account: ConnectAccount, older_server: Path, watcher: Watcher
) -> None:
    account = await connect_account((await make_nats(launch=Launch(binary=older_server))).url)
    await account.create(watcher.sink.stream, subjects=[watcher.space, f"neighbour.{watcher.sink.stream}"])
    sink, _ = await opened(account, watcher)
    assert (sink.mode, sink.exclusive) == ("single", False)
    other, _ = await opened(account, watcher)
    batch = changes(1, 301)
    await asyncio.gather(relay(sink, batch, size=20), relay(other, batch, size=7))
    assert await account.ids(watcher.sink.stream) == [change.id for change in batch]


async def test_a_collection_that_may_not_be_published_is_named_where_each_has_its_own_subject(
    make_nats: MakeNats, connect_account: ConnectAccount, unique: str
) -> None:
    """The server names the subject; what is under way knows a filter."""
    stream = f"S_{unique}".upper()
    denied = f'{{publish: {{deny: ["{stream}.secret.>"]}}}}'
    server = await make_nats(config=f"authorization {{ users: [{{user: a, password: b, permissions: {denied}}}] }}")
    account = await connect_account(server.url, user="a", password="b")
    shop = from_document(
        {
            "name": "shop",
            "source": {"database": "shop"},
            "sink": {"stream": stream, "subject": "{stream}.{collection}.{operation}"},
        }
    )

    def of(collection: str, begin: int, end: int) -> list[Change]:
        subject = shop.subjects.subject("shop", collection, "insert")
        return [replace(each, subject=subject) for each in changes(begin, end)]

    sink, fence = await opened(account, shop)
    assert await sink.publish(of("orders", 1, 3), fence) == 2
    with pytest.raises(NotAuthorised, match=rf"{stream}\.\*\.insert"):
        await sink.publish(of("secret", 3, 5), 2)
    assert await sink.publish(of("orders", 5, 7), (await sink.tail()).last_sequence) == 4
    assert await account.ids(stream) == [*ids(1, 3), *ids(5, 7)]
