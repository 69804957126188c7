"""What every `EventSink` promises of publishing, in every mode: each change once, in order, behind a fence.

Every test looks at what the stream holds in the end. What only a real server can do wrong is in
`tests/integration/jetstream/`.
"""

import asyncio

import pytest

from app.domain.errors import FenceLost, OutcomeUnknown, SeenBefore, StreamFull
from app.domain.watcher import Watcher
from app.ports import EventSink
from tests.contract.sink.places import Place, change, fence, stored


async def test_a_batch_is_stored_once_in_order_and_its_end_is_the_next_fence(
    place: Place, sink: EventSink, stream: str
) -> None:
    operations = ["insert", "update", "replace", "delete"]
    batch = [change(moment, operations[moment % 4]) for moment in range(1, 301)]
    sequence = await fence(sink)
    for begin, end in ((0, 150), (150, 151), (151, 300)):
        sequence = await sink.publish(batch[begin:end], sequence)
    assert await place.messages() == stored(*batch, stream=stream)
    assert sequence == await fence(sink)


@pytest.mark.parametrize("size", [1, 3])
async def test_a_wrong_fence_stores_nothing(place: Place, sink: EventSink, stream: str, size: int) -> None:
    first = change(1)
    sequence = await sink.publish([first], await fence(sink))
    for wrong in (sequence + 5, sequence - 1):
        with pytest.raises(FenceLost):
            await sink.publish([change(10 + moment) for moment in range(size)], wrong)
    assert await place.messages() == stored(first, stream=stream)


@pytest.mark.parametrize("size", [1, 3])
async def test_an_id_that_was_purged_within_the_duplicate_window_is_told_apart(
    place: Place, sink: EventSink, size: int
) -> None:
    batch = [change(moment) for moment in range(1, 1 + size)]
    await sink.publish(batch, await fence(sink))
    await place.purge()
    with pytest.raises(SeenBefore):
        await sink.publish(batch, await fence(sink))
    assert await place.messages() == []


async def test_published_singly_a_known_id_counts_as_published(place: Place, sink: EventSink, stream: str) -> None:
    known, new = change(1), change(2)
    await sink.publish([known], await fence(sink))
    await place.purge()
    sequence = await fence(sink)
    assert await sink.publish_singly(known, sequence) == sequence
    last = await sink.publish_singly(new, sequence)
    assert last > sequence
    assert await place.messages() == stored(new, stream=stream)


async def test_after_a_purge_a_stream_of_its_own_refuses_a_writer_that_believes_it_to_be_new(
    place: Place, sink: EventSink, stream: str
) -> None:
    if not sink.exclusive:
        pytest.skip("a fence by subject cannot tell a purged stream from a new one")
    await sink.publish([change(1), change(2)], await fence(sink))
    await place.purge()
    with pytest.raises(FenceLost):
        await sink.publish([change(3), change(4)], 0)
    assert await place.messages() == []


async def test_a_foreign_message_between_two_batches_is_a_lost_fence(
    place: Place, sink: EventSink, stream: str
) -> None:
    sequence = await sink.publish([change(1), change(2)], await fence(sink))
    await place.foreign(f"{stream}.insert")
    with pytest.raises(FenceLost):
        await sink.publish([change(3)], sequence)
    assert len(await place.messages()) == 3


async def test_two_writers_with_the_same_changes_store_each_once_in_order(
    place: Place, watcher: Watcher, stream: str
) -> None:
    batch = [change(moment) for moment in range(1, 241)]

    async def write(size: int) -> None:
        """The protocol in small: publish, and after any doubt read back and go on behind what is there."""
        sink = place.sink(watcher)
        await sink.prepare(may_create=True)
        tail = await sink.tail()
        sequence, waiting = tail.fence(exclusive=sink.exclusive), batch
        while waiting:
            try:
                sequence = await sink.publish(waiting[:size], sequence)
                waiting = waiting[size:]
            except OutcomeUnknown:
                tail = await sink.tail()
                position = tail.own.id.position if tail.own else ""
                waiting = [one for one in waiting if one.token > position]
                sequence = tail.fence(exclusive=sink.exclusive)

    await asyncio.gather(write(7), write(11), write(1))
    assert await place.messages() == stored(*batch, stream=stream)


async def test_a_full_stream_says_so_and_what_it_has_taken(place: Place, sink: EventSink, stream: str) -> None:
    batch = [change(moment) for moment in range(1, 8)]
    await place.limit(4)
    sequence, waiting, size = await fence(sink), list(batch), len(batch)
    while len(waiting) > 3 and size:
        try:
            sequence, taken = await sink.publish(waiting[:size], sequence), min(size, len(waiting))
        except (
            StreamFull,
            OutcomeUnknown,
        ) as error:  # a window: what is behind the first refusal is refused by its fence
            sequence, taken = error.sequence if error.stored else sequence, error.stored
            size //= 2
        waiting = waiting[taken:]
    assert await place.messages() == stored(*batch[:4], stream=stream)
    with pytest.raises(StreamFull) as caught:
        await sink.publish(waiting[:1], sequence)
    assert (caught.value.tried, caught.value.stored) == (1, 0)
    await place.limit(10)
    await sink.publish(waiting, sequence)
    assert await place.messages() == stored(*batch, stream=stream)


async def test_closing_twice_is_harmless(sink: EventSink) -> None:
    await sink.close()
    await sink.close()
