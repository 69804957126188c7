"""What every `EventSink` that is pipelined promises of several sends under way: they end in order, and tell the truth.

The truth of a send that has failed: its `stored` are on the stream, up to `sequence`. Of those behind it nothing is,
except in atomic batches where another writer's messages have exactly its place.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from app.domain.errors import FenceLost, OutcomeUnknown, SeenBefore, StreamFull, StreamRefused
from app.domain.events import Change
from app.domain.watcher import Watcher
from app.ports import EventSink
from tests.contract.sink.conftest import PIPELINED
from tests.contract.sink.places import Place, change, fence, stored

pytestmark = [
    pytest.mark.parametrize("unbegun", PIPELINED, indirect=True),
    pytest.mark.usefixtures("small_windows"),
]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow windows of some messages, so that a test sees many acknowledgements; and a batch in trouble may end late."""
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.FLOW", 8)
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.GRACE_SECONDS", 10.0)


@pytest_asyncio.fixture
async def line(sink: EventSink) -> "AsyncIterator[Line]":
    yield Line(sink, await fence(sink))


class Line:
    """Sends to a sink, each behind the one before, and what became of them."""

    def __init__(self, sink: EventSink, fence: int) -> None:
        self.sink = sink
        self.fence = fence
        self.sent: list[tuple[Sequence[Change], int, asyncio.Future[int]]] = []

    @property
    def failed(self) -> bool:
        return any(future.done() and future.exception() is not None for _, _, future in self.sent)

    async def send(self, changes: Sequence[Change], *, more: bool = True) -> None:
        """Send the changes when they may be sent; nothing behind what is known to have failed."""
        async with asyncio.timeout(15):
            await self.sink.ready(changes)
        if self.failed:
            return
        self.sent.append((changes, self.fence, self.sink.send(changes, self.fence, more=more)))
        self.fence += len(changes)

    async def ended(self) -> list[OutcomeUnknown | StreamRefused | None]:
        """Settle, wait until all has ended, and return the error of each, None where it is stored as a whole."""
        self.sink.settle()
        if self.sent:
            _, left = await asyncio.wait([future for _, _, future in self.sent], timeout=15)
            assert not left, "a send has not ended"
        errors: list[OutcomeUnknown | StreamRefused | None] = []
        for changes, before, future in self.sent:
            error = future.exception()
            assert error is None or isinstance(error, OutcomeUnknown | StreamRefused), repr(error)
            assert error is not None or future.result() == before + len(changes)
            errors.append(error)
        return errors


def part(begin: int, end: int) -> list[Change]:
    return [change(moment) for moment in range(begin, end)]


async def test_many_sends_are_stored_in_order_and_each_tells_its_last_sequence(
    place: Place, line: Line, stream: str
) -> None:
    batch = part(1, 301)
    for begin, end in ((0, 40), (40, 41), (41, 100), (100, 170), (170, 172), (172, 300)):
        await line.send(batch[begin:end], more=end < 300)
    assert await line.ended() == [None] * 6
    assert await place.messages() == stored(*batch, stream=stream)
    assert line.fence == await fence(line.sink)


@pytest.mark.parametrize("size", [1, 30])
async def test_a_lone_send_is_stored_without_another_word(place: Place, line: Line, stream: str, size: int) -> None:
    for begin in (1, 1 + size, 1 + 2 * size):
        await line.send(part(begin, begin + size), more=False)
        async with asyncio.timeout(15):
            await line.sent[-1][2]
    assert await place.messages() == stored(*part(1, 1 + 3 * size), stream=stream)


async def test_where_more_was_to_come_and_did_not_all_is_stored_when_it_is_settled(
    place: Place, line: Line, stream: str
) -> None:
    await line.send(part(1, 3))
    await line.send(part(3, 21))
    assert await line.ended() == [None, None]
    line.sink.settle()
    await line.send(part(21, 30), more=False)
    assert await line.ended() == [None] * 3
    assert await place.messages() == stored(*part(1, 30), stream=stream)


async def test_a_publish_goes_between_sends_that_have_ended(place: Place, line: Line, stream: str) -> None:
    await line.send(part(1, 20))
    assert await line.ended() == [None]
    line.fence = await line.sink.publish(part(20, 25), line.fence)
    await line.send(part(25, 50))
    assert await line.ended() == [None] * 2
    assert await place.messages() == stored(*part(1, 50), stream=stream)


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("wrong", [-3, 3])
async def test_a_wrong_fence_at_the_first_stores_nothing_of_any(
    place: Place, line: Line, stream: str, size: int, wrong: int
) -> None:
    await line.send(part(1, 5), more=False)
    await line.ended()
    line.fence += wrong
    for begin in range(10, 10 + 3 * size, size):
        await line.send(part(begin, begin + size))
    errors = await line.ended()
    assert isinstance(errors[1], FenceLost)
    assert not any(error is None or getattr(error, "stored", 0) for error in errors[1:])
    assert await place.messages() == stored(*part(1, 5), stream=stream)


@pytest.mark.parametrize("size", [1, 20])
async def test_a_message_of_another_between_two_sends_ends_them_there(
    place: Place, line: Line, stream: str, size: int
) -> None:
    await line.send(part(1, 31))
    async with asyncio.timeout(15):
        while len(await place.messages()) < 30:
            await asyncio.sleep(0)
    await place.foreign(f"{stream}.insert")
    for begin in range(31, 31 + 3 * size, size):
        await line.send(part(begin, begin + size))
    first, *errors = await line.ended()
    assert first is None
    assert errors
    assert all(isinstance(error, OutcomeUnknown) and error.stored == 0 for error in errors)
    there = await place.messages()
    assert there[:30] == stored(*part(1, 31), stream=stream)
    assert len(there) == 31


@pytest.mark.parametrize("known", [(1, 2), (7, 8), (19, 21), (41, 42), (1, 61), (30, 45)])
async def test_ids_that_the_duplicate_window_knows_are_never_counted_as_stored_in_their_place(
    place: Place, line: Line, stream: str, known: tuple[int, int]
) -> None:
    """They were published and purged; which of them depends on the test, a run of many included."""
    await line.send(part(*known), more=False)
    assert await line.ended() == [None]
    await place.purge()
    line.sent.clear()
    line.fence = base = await fence(line.sink)
    for begin in (1, 21, 41):
        await line.send(part(begin, begin + 20))
    errors = await line.ended()
    good = next(index for index, error in enumerate(errors) if error is not None)
    error = errors[good]
    assert isinstance(error, SeenBefore | FenceLost)
    assert good * 20 + error.stored <= known[0] - 1, "what is known is not stored again"
    there = await place.messages()
    assert there == stored(*part(1, 1 + len(there)), stream=stream), "a prefix, and nothing behind it"
    assert len(there) >= good * 20 + error.stored
    assert await fence(line.sink) == base + len(there)
    assert all(isinstance(one, OutcomeUnknown) for one in errors[good:])


async def test_a_stream_that_is_full_in_the_middle_says_what_it_has_taken(
    place: Place, line: Line, stream: str
) -> None:
    await place.limit(50)
    for begin in (1, 21, 41, 61):
        await line.send(part(begin, begin + 20))
    errors = await line.ended()
    assert errors[:2] == [None, None]
    full = errors[2]
    assert isinstance(full, StreamFull)
    there = await place.messages()
    assert there == stored(*part(1, 41 + full.stored), stream=stream)
    assert full.stored == 0 or full.sequence == 40 + full.stored == 50
    assert all(isinstance(error, FenceLost | StreamFull) for error in errors[3:])
    await place.limit(1000)
    line.sent.clear()
    line.fence = len(there)
    await line.send(part(1 + len(there), 90), more=False)
    assert await line.ended() == [None]
    assert await place.messages() == stored(*part(1, 90), stream=stream)


async def test_a_purge_in_the_middle_is_not_noticed_and_stops_nothing(place: Place, line: Line, stream: str) -> None:
    await line.send(part(1, 31))
    await place.purge()
    await line.send(part(31, 61))
    assert await line.ended() == [None, None]
    there = await place.messages()
    assert there == stored(*part(1, 61), stream=stream)[60 - len(there) :]
    assert await fence(line.sink) == 60


async def test_a_stream_that_is_deleted_in_the_middle_ends_all_sends(
    place: Place, line: Line, sink: EventSink, watcher: Watcher, stream: str
) -> None:
    await line.send(part(1, 31))
    line.sink.settle()
    await asyncio.wait([line.sent[0][2]])
    await place.delete()
    for begin in (31, 61, 91):
        await line.send(part(begin, begin + 30))
    errors = await line.ended()
    assert errors[0] is None
    assert all(error is not None and not getattr(error, "stored", 0) for error in errors[1:])
    again = place.sink(watcher)
    await again.prepare(may_create=True)
    after = Line(again, await fence(again))
    await after.send(part(1, 31), more=False)
    assert await after.ended() == [None]
    assert await place.messages() == stored(*part(1, 31), stream=stream)
    await again.close()


async def test_what_is_closed_in_the_middle_leaves_nothing_running_and_another_sink_goes_on(
    place: Place, line: Line, sink: EventSink, watcher: Watcher, stream: str
) -> None:
    batch = part(1, 201)
    before = asyncio.all_tasks()
    for begin in (0, 20):
        await line.send(batch[begin : begin + 20])
    await sink.close()
    assert asyncio.all_tasks() <= before
    assert all(future.done() for _, _, future in line.sent)
    again = place.sink(watcher)
    await again.prepare(may_create=True)
    await write(again, batch, 30)
    assert await place.messages() == stored(*batch, stream=stream)
    await again.close()


async def test_three_writers_with_the_same_changes_store_each_once_in_order(
    place: Place, watcher: Watcher, stream: str
) -> None:
    batch = part(1, 601)
    sinks = [place.sink(watcher) for _ in range(3)]
    for sink in sinks:
        await sink.prepare(may_create=True)
    async with asyncio.timeout(100):
        await asyncio.gather(*(write(sink, batch, size) for sink, size in zip(sinks, (7, 31, 20), strict=True)))
    assert await place.messages() == stored(*batch, stream=stream)
    for sink in sinks:
        await sink.close()


async def write(sink: EventSink, waiting: Sequence[Change], size: int) -> None:
    """The protocol in small: several sends at once, and after an error wait for all, read back, and go on behind what
    is there."""
    while True:
        tail = await sink.tail()
        position = tail.own.id.position if tail.own else ""
        waiting = [one for one in waiting if one.token > position]
        if not waiting:
            return
        line = Line(sink, tail.fence(exclusive=sink.exclusive))
        for begin in range(0, len(waiting), size):
            await line.send(waiting[begin : begin + size], more=begin + size < len(waiting))
            if line.failed:
                break
        await line.ended()
