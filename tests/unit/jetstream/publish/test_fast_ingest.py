"""An open batch, message by message: what it writes, what each reply does to its sends, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.domain.errors import FenceLost, OutcomeUnknown, SeenBefore, SinkUnavailable
from app.domain.events import Change
from app.jetstream.account import JetStream
from app.ports import EventSink
from tests.contract.sink.places import change
from tests.fakes.nats_server import MemoryNats
from tests.properties.test_capture_properties import WATCHER


@pytest.fixture(autouse=True)
def windows_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.FLOW", 4)


@pytest.fixture
def server() -> MemoryNats:
    return MemoryNats()


@pytest_asyncio.fixture
async def sink(server: MemoryNats) -> AsyncIterator[EventSink]:
    server.connect()
    made = JetStream(server.connection).sink(WATCHER)
    await made.prepare(may_create=True)
    yield made
    await made.close()


def part(begin: int, end: int) -> list[Change]:
    return [change(moment) for moment in range(begin, end)]


def there(server: MemoryNats) -> list[str]:
    return [one.id for one in server.streams["ORDERS"].history]


def ids(begin: int, end: int) -> list[str]:
    return [one.id for one in part(begin, end)]


async def test_every_message_carries_the_fence_of_the_one_before(server: MemoryNats, sink: EventSink) -> None:
    first, second = sink.send(part(1, 4), 0, more=True), sink.send(part(4, 6), 3, more=False)
    assert (await first, await second) == (3, 5)
    fences = [b"Nats-Expected-Last-Sequence: %d\r\n" % fence for fence in range(5)]
    assert all(fence in one.headers for fence, one in zip(fences, server.streams["ORDERS"].history, strict=True))


async def test_two_windows_are_sent_ahead_and_a_third_waits(server: MemoryNats, sink: EventSink) -> None:
    server.deeds.extend(["mute"] * 10)  # of each window four messages, and the question for the last one's place
    futures = [sink.send(part(1, 5), 0, more=True)]
    await sink.ready(part(5, 9))
    futures.append(sink.send(part(5, 9), 4, more=True))
    waiting = asyncio.ensure_future(sink.ready(part(9, 10)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done(), "nothing is acknowledged"
    sink.settle()
    await waiting
    futures.append(sink.send(part(9, 10), 8, more=False))
    assert [await future for future in futures] == [4, 8, 9]


async def test_a_place_gives_room_where_the_flow_acknowledgements_are_lost(server: MemoryNats, sink: EventSink) -> None:
    server.deeds.extend(["ok", "ok", "ok", "mute", "ok"] * 2)
    first, second = sink.send(part(1, 5), 0, more=True), sink.send(part(5, 9), 4, more=True)
    assert (await first, await second) == (4, 8)
    await sink.ready(part(9, 10))
    assert await sink.send(part(9, 10), 8, more=False) == 9


async def test_a_batch_with_always_something_under_way_is_given_up_as_soon_as_another(
    server: MemoryNats, sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.FLOW", 500)
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.ACK_SECONDS", 0.1)
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.SLOWEST_BYTES_PER_SECOND", 10_000)
    server.deeds.extend(["mute"] * 1_000)
    stored = [sink.send(part(1, 3), 0, more=True)]
    for fence in range(2, 200, 2):
        stored.append(sink.send(part(fence + 1, fence + 3), fence, more=True))
        (batch,) = server.connection._exchanges.values()
        batch.heard(b"x-%d.1.fail.1.2.$FI" % fence, b'{"seq":%d,"duplicate":true}' % fence, None)
        assert stored[-2].done()
    async with asyncio.timeout(3):
        with pytest.raises(OutcomeUnknown, match="in time"):
            await stored[-1]


async def test_an_open_batch_moves_on_without_its_end(server: MemoryNats, sink: EventSink) -> None:
    future = sink.send(part(1, 3), 0, more=True)
    assert await future == 2
    assert len(server.streams["ORDERS"].batches) == 1
    assert await sink.send(part(3, 4), 2, more=False) == 3
    assert not server.streams["ORDERS"].batches


async def test_asking_for_a_place_stores_nothing(server: MemoryNats, sink: EventSink) -> None:
    await sink.send(part(1, 3), 0, more=True)
    server.deeds.extend(["ok", "ok", "forget_ids"])  # the two messages, and then the question for the second's place
    future = sink.send(part(3, 5), 2, more=True)
    assert await future == 4, "its end has told"
    assert there(server) == ids(1, 5)


async def test_what_does_not_follow_the_last_change_is_refused_here(server: MemoryNats, sink: EventSink) -> None:
    first, second = sink.send(part(1, 3), 0, more=True), sink.send(part(9, 10), 7, more=True)
    sink.settle()
    assert await first == 2
    with pytest.raises(FenceLost):
        await second
    assert there(server) == ids(1, 3)


@pytest.mark.parametrize(("deed", "stored"), [("lose", 2), ("foreign", 2), ("full", 2), ("forget", 0)])
async def test_a_refusal_in_the_middle_tells_what_is_stored_and_nothing_follows(
    server: MemoryNats, sink: EventSink, deed: str, stored: int
) -> None:
    server.deeds.extend(["ok", "ok", deed])  # type: ignore[list-item]
    futures = [sink.send(part(1, 5), 0, more=True), sink.send(part(5, 9), 4, more=True)]
    await asyncio.wait(futures)
    first, second = (future.exception() for future in futures)
    assert getattr(first, "stored", None) == stored
    assert isinstance(second, OutcomeUnknown)
    assert second.stored == 0
    assert [id_ for id_ in there(server) if id_] == ids(1, 3)


async def test_the_id_of_a_lone_change_that_is_known_is_told(server: MemoryNats, sink: EventSink) -> None:
    await sink.publish(part(1, 2), 0)
    with pytest.raises(SeenBefore, match="sequence 1"):
        await sink.publish(part(1, 2), 1)


async def test_a_silent_server_is_given_up_and_the_batch_with_it(
    server: MemoryNats, sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.ACK_SECONDS", 0.01)
    server.deeds.extend(["mute"] * 20)
    futures = [sink.send(part(1, 5), 0, more=True), sink.send(part(5, 9), 4, more=False)]
    for future in futures:
        with pytest.raises(OutcomeUnknown):
            await future
    assert there(server) == ids(1, 9)
    server.deeds.clear()
    assert await sink.publish(part(9, 12), 8) == 11


async def test_an_error_whose_end_does_not_come_is_waited_for_a_moment_only(
    server: MemoryNats, sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.GRACE_SECONDS", 0.01)
    await sink.send(part(1, 3), 0, more=True)
    server.streams["ORDERS"].config["allow_batched"] = False
    future = sink.send(part(3, 5), 2, more=False)
    with pytest.raises(OutcomeUnknown, match="switched off"):
        await future
    assert there(server) == ids(1, 3)


async def test_a_lost_connection_ends_all_and_what_was_proved_before_stays(server: MemoryNats, sink: EventSink) -> None:
    assert await sink.send(part(1, 3), 0, more=True) == 2
    server.deeds.extend(["ok", "cut"])
    futures = [sink.send(part(3, 5), 2, more=True), sink.send(part(5, 9), 4, more=True)]
    for future in futures:
        with pytest.raises(OutcomeUnknown):
            await future
    assert there(server) == ids(1, 4)
    assert await sink.publish(part(4, 6), 3) == 5


async def test_without_a_connection_nothing_is_sent(server: MemoryNats, sink: EventSink) -> None:
    server.connection._client = None
    with pytest.raises(SinkUnavailable):
        await sink.send(part(1, 3), 0, more=True)
    await sink.ready(part(1, 3))
    server.connect()
    assert await sink.send(part(1, 3), 0, more=False) == 2
