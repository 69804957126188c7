"""What waits to be published: its order, its bounds, and what is taken together."""

from __future__ import annotations

import asyncio

import pytest

from app.domain.errors import Unavailable
from app.domain.events import Change
from app.pipeline.batch_queue import TOGETHER_BYTES, BatchQueue, Encoded, Settling, Turn


def batch(number: int, size: int = 100) -> Encoded:
    token = f"{number:04}"
    return Encoded([Change(token, "insert", b"{}", 0.0, token)], token, float(number), size)


def tokens(item: object) -> list[str]:
    assert isinstance(item, Encoded)
    return [change.token for change in item.changes]


async def put_all(batch_queue: BatchQueue, *batches: Encoded) -> None:
    for each in batches:
        await batch_queue.put(each)
    batch_queue.close()


async def test_small_batches_that_wait_are_taken_together_in_their_order() -> None:
    batch_queue = BatchQueue()
    putting = asyncio.create_task(put_all(batch_queue, *map(batch, range(5))))
    await asyncio.sleep(0)
    item = await batch_queue.take()  # the one that waits, and the one that the encoder holds
    assert tokens(item) == ["0000", "0001"]
    assert isinstance(item, Encoded)
    assert (item.position, item.read_at, item.size) == ("0001", 0.0, 200)
    later: list[str] = []
    while (after := await batch_queue.take()) is not None:
        later += tokens(after)
    assert later == ["0002", "0003", "0004"]
    await putting


async def test_a_batch_alone_is_handed_on_at_once() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(1))
    assert tokens(await batch_queue.take()) == ["0001"]


async def test_large_batches_stay_apart_and_only_one_waits() -> None:
    batch_queue = BatchQueue()
    putting = asyncio.create_task(put_all(batch_queue, *(batch(number, TOGETHER_BYTES) for number in range(3))))
    await asyncio.sleep(0)
    assert [tokens(await batch_queue.take()) for _ in range(3)] == [["0000"], ["0001"], ["0002"]]
    await putting


async def test_what_is_taken_together_is_bounded() -> None:
    batch_queue = BatchQueue()
    putting = asyncio.create_task(put_all(batch_queue, *(batch(number, TOGETHER_BYTES) for number in range(2))))
    await asyncio.sleep(0)
    assert tokens(await batch_queue.take()) == ["0000"]
    assert tokens(await batch_queue.take()) == ["0001"]
    await putting


async def test_the_encoder_holds_a_batch_until_the_one_ahead_of_it_is_taken() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(0, TOGETHER_BYTES))
    putting = asyncio.create_task(batch_queue.put(batch(1)))
    await asyncio.sleep(0.01)
    assert not putting.done()
    await batch_queue.take()
    await putting


async def test_a_put_that_is_cancelled_leaves_nothing_behind() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(0))
    putting = asyncio.create_task(batch_queue.put(batch(1)))
    await asyncio.sleep(0)
    putting.cancel()
    await asyncio.wait([putting])
    batch_queue.close()
    assert tokens(await batch_queue.take()) == ["0000"]
    assert await batch_queue.take() is None


async def test_a_take_that_is_cancelled_has_taken_nothing() -> None:
    batch_queue = BatchQueue()
    taking = asyncio.create_task(batch_queue.take())
    await asyncio.sleep(0)
    await batch_queue.put(batch(0))  # the take is woken, and does not come to it
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert tokens(await batch_queue.take()) == ["0000"]


async def test_a_turn_keeps_its_place_between_batches() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(0))
    asked = batch_queue.ask(7)
    putting = asyncio.create_task(put_all(batch_queue, batch(1)))
    await asyncio.sleep(0)
    assert tokens(await batch_queue.take()) == ["0000"]
    turn = await batch_queue.take()
    assert isinstance(turn, Turn)
    assert turn.sequence == 7
    assert tokens(await batch_queue.take()) == ["0001"]
    assert await batch_queue.take() is None
    assert not asked.done()
    await putting


async def test_turns_are_told_when_there_will_be_none() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(0))
    early = batch_queue.ask(1)
    putting = asyncio.create_task(batch_queue.put(batch(1)))
    await asyncio.sleep(0)
    await batch_queue.take()
    late = batch_queue.ask(2)
    batch_queue.end_turns()
    for asked in (early, late):
        with pytest.raises(Unavailable, match="nothing was published"):
            await asked
    await putting


async def test_what_is_put_before_is_taken_first_and_what_waits_for_that_is_told_by_the_one_who_takes() -> None:
    batch_queue = BatchQueue()
    await batch_queue.put(batch(1))
    settled = batch_queue.settled()
    putting = asyncio.create_task(batch_queue.put(batch(2)))
    await asyncio.sleep(0)
    assert tokens(await batch_queue.take()) == ["0001"]  # not together with what comes after the one who waits
    item = await batch_queue.take()
    assert isinstance(item, Settling)
    assert not settled.done()
    item.done.set_result(None)
    assert settled.done()
    assert tokens(await batch_queue.take()) == ["0002"]
    await putting


async def test_one_who_waits_for_all_to_be_published_is_told_where_that_never_will_be() -> None:
    batch_queue = BatchQueue()
    settled = batch_queue.settled()
    batch_queue.end_turns()
    with pytest.raises(Unavailable):
        await settled
