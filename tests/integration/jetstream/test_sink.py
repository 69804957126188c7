"""The end of a stream as it changes under a running watcher: its fence, what expired, and what neighbours publish.

What every sink has to do is in `tests/contract/sink/`.
"""

import asyncio

import pytest

from app.domain.watcher import Watcher
from tests.nats_account import Account, changes, ids, make_watcher, opened, relay

pytestmark = pytest.mark.usefixtures("small_batches")


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
    assert await nats.ids(watcher.sink.stream) == [*ids(1, 4), None, *ids(4, 6)]


async def test_expired_messages_leave_the_last_sequence(nats: Account, stream: str) -> None:
    watcher = make_watcher(stream, max_age_seconds=0.2, duplicate_window_seconds=0.1)
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 4), fence)
    async with asyncio.timeout(10):
        while (tail := await sink.tail()).space_sequence:
            await asyncio.sleep(0.05)
    assert (tail.own, tail.fence(exclusive=sink.exclusive)) == (None, 3)
    assert await sink.publish(changes(4, 6), 3) == 5  # so nothing before it was published again


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
    assert ours == ids(1, 501)
