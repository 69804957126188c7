"""How much of what was read is held: bounded for each, bounded for all, and never so that one keeps another waiting."""

import asyncio

import pytest

from app.pipeline.memory_budget import MemoryBudget
from tests.fakes import FakeOplog, FakeSink, FakeSource, FakeStream
from tests.unit.deployment import ORDERS, capture, until


def test_a_share_has_room_until_its_limit_and_whatever_it_holds_counts_for_all() -> None:
    memory_budget = MemoryBudget(total=100)
    share, other = memory_budget.share(limit=60), memory_budget.share(limit=60)
    share.take(59)
    assert share.room
    share.take(1)
    assert not share.room
    other.take(39)
    assert other.room
    other.take(1)
    assert not other.room
    assert memory_budget.held == 100
    share.give_all_back()
    assert share.room
    assert other.room
    assert (share.held, memory_budget.held) == (0, 40)


def test_who_holds_nothing_may_always_read() -> None:
    memory_budget = MemoryBudget(total=100)
    greedy, idle = memory_budget.share(limit=1_000), memory_budget.share(limit=1_000)
    greedy.take(500)
    assert idle.room
    idle.take(1)
    assert not idle.room


async def test_one_that_waits_for_room_goes_on_when_another_gives_back() -> None:
    memory_budget = MemoryBudget(total=100)
    share, other = memory_budget.share(), memory_budget.share()
    share.take(10)
    other.take(90)
    waiting = asyncio.create_task(share.until_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    other.give_back(1)
    await asyncio.wait_for(waiting, 5)


async def test_one_that_is_cancelled_while_it_waits_is_in_nobodys_way() -> None:
    memory_budget = MemoryBudget(total=100)
    share = memory_budget.share()
    share.take(100)
    waiting = asyncio.create_task(share.until_room())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    share.give_back(1)  # wakes nobody, and the next one that waits is woken as ever
    share.take(1)
    later = asyncio.create_task(share.until_room())
    await asyncio.sleep(0)
    share.give_all_back()
    await asyncio.wait_for(later, 5)


class Held(FakeSink):
    """Publishes only once it is let."""

    open = asyncio.Event()

    async def publish(self, changes, fence):
        await Held.open.wait()
        return await super().publish(changes, fence)


@pytest.mark.parametrize("limit", [1, 3_000, 10_000])
async def test_while_nothing_is_published_no_more_is_read_than_the_share_and_a_batch(limit: int) -> None:
    Held.open = asyncio.Event()
    oplog, stream, memory_budget = FakeOplog(), FakeStream(), MemoryBudget(total=limit)
    one = capture(stream, FakeSource(oplog, 3, 0.01), sink=Held(stream, ORDERS), memory_budget=memory_budget)
    opened = asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await opened.wait()
    for _ in range(200):
        oplog.happen(text="x" * 200)
    batch = max(len(raw) for _, raw in oplog.events) * 3
    most = 0
    for _ in range(500):
        await asyncio.sleep(0)
        most = max(most, memory_budget.held)
    assert 0 < most <= limit + batch
    Held.open.set()
    await until(lambda: len(stream.published()) == 200)
    assert stream.published() == oplog.tokens
    one.stop()
    await running
    assert memory_budget.held == 0


async def test_a_run_that_ends_in_the_middle_gives_all_back() -> None:
    Held.open = asyncio.Event()
    oplog, stream, memory_budget = FakeOplog(), FakeStream(), MemoryBudget()
    one = capture(stream, FakeSource(oplog, 3, 0.01), sink=Held(stream, ORDERS), memory_budget=memory_budget)
    opened = asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await opened.wait()
    for _ in range(20):
        oplog.happen()
    await until(lambda: memory_budget.held > 0)
    running.cancel()
    await asyncio.wait([running])
    assert memory_budget.held == 0
