"""Of many watchers that open, some are let through at a time, and one that takes long keeps out nobody."""

import asyncio

from app.pipeline.opening_gate import OpeningGate
from tests.unit.deployment import until


async def test_so_many_are_let_through_and_the_next_when_one_is_done() -> None:
    gate, within, done = OpeningGate(2, 60.0), list[int](), asyncio.Event()

    async def opening(number: int) -> None:
        async with gate.passing():
            within.append(number)
            await done.wait()

    openings = [asyncio.create_task(opening(number)) for number in range(5)]
    await until(lambda: len(within) == 2)
    await asyncio.sleep(0)
    assert within == [0, 1]
    openings[0].cancel()
    await until(lambda: within == [0, 1, 2])
    done.set()
    await asyncio.wait(openings)
    assert within == [0, 1, 2, 3, 4]


async def test_those_that_take_long_keep_out_nobody_and_leave_no_room_twice() -> None:
    gate, within, never = OpeningGate(1, 0.01), set[int](), asyncio.Event()

    async def stuck(number: int) -> None:
        async with gate.passing():
            within.add(number)
            await never.wait()

    openings = [asyncio.create_task(stuck(number)) for number in range(3)]
    await until(lambda: len(within) == 3)
    for each in openings:
        each.cancel()
    await asyncio.wait(openings)
    entered = asyncio.Event()

    async def holds() -> None:
        async with gate.passing():
            entered.set()
            await never.wait()

    gate_of_one = asyncio.create_task(holds())
    await entered.wait()
    assert gate._free.locked()
    gate_of_one.cancel()
    await asyncio.wait([gate_of_one])
