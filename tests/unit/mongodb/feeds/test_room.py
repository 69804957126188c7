"""What waits in all feeds of a process together."""

import asyncio

from app.mongodb.feeds.room import Room


async def test_it_is_full_by_what_all_hold_together_and_waits_until_some_is_taken() -> None:
    room = Room(total=10)
    room.change(6)
    assert not room.is_full
    room.change(4)
    assert room.is_full
    waiting = asyncio.create_task(room.freed(60))
    await asyncio.sleep(0)
    room.change(1)
    await asyncio.sleep(0)
    assert not waiting.done(), "more than before is no room"
    room.change(-2)
    await waiting
    assert not room.is_full


async def test_waiting_for_room_ends_with_the_time() -> None:
    room = Room(total=1)
    room.change(1)
    await room.freed(0.001)
    assert room.is_full
