"""Reading back behind others' messages: bounded, and without cost for what is on other subjects."""

import asyncio

import pytest

from app.domain.watcher import Watcher
from app.jetstream import lookback
from tests.fakes import event_token
from tests.nats_account import Account, changes, opened

pytestmark = pytest.mark.usefixtures("small_batches")


async def test_a_look_back_is_bounded_and_says_so(
    nats: Account, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "LOOK_BACK", 100)
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 3), fence)
    for _ in range(150):
        await nats.connection.request(f"{watcher.sink.stream}.insert", b"foreign")
    tail = await sink.tail()
    assert tail.unsearched
    assert tail.own is None
    assert 100 <= tail.foreign < 150
    assert not (await sink.tail(since=60)).unsearched


async def test_what_neighbours_publish_costs_a_look_back_nothing(
    nats: Account, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of ours is found behind thousands of messages on other subjects, and some on ours."""
    monkeypatch.setattr(lookback, "LOOK_BACK", 200)
    neighbour = f"neighbour.{watcher.sink.stream}"
    await nats.create(watcher.sink.stream, subjects=[watcher.space, neighbour])
    sink, fence = await opened(nats, watcher)
    await sink.publish(changes(1, 4), fence)
    for subject, count in ((watcher.subject("insert"), 80), (neighbour, 3000), (watcher.subject("insert"), 70)):
        for begin in range(0, count, 300):  # each has to be answered within seconds
            asked = range(begin, min(begin + 300, count))
            await asyncio.gather(*(nats.connection.request(subject, b"x") for _ in asked))
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.sequence, tail.foreign, tail.unsearched) == (3, 150, False)


async def test_foreign_messages_on_other_subjects_are_stepped_over_however_many(
    nats: Account, watcher: Watcher
) -> None:
    sink, fence = await opened(nats, watcher)
    await sink.publish([*changes(1, 2), *changes(2, 3, "delete")], fence)
    for _ in range(150):
        await nats.connection.request(f"{watcher.sink.stream}.somebody", b"foreign")
    tail = await sink.tail()
    assert not tail.unsearched
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence, tail.space_sequence) == (event_token(2), 2, 152)
