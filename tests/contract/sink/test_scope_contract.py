"""What every `EventSink` promises where each collection has a subject of its own, in every mode."""

import asyncio

import pytest

from app.domain.events import Change
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher, from_document
from app.ports import EventSink
from tests.contract.sink.conftest import PIPELINED
from tests.contract.sink.places import Place, Stored, fence
from tests.fakes import event_token

OPERATIONS = ("insert", "update", "replace", "delete")


@pytest.fixture
def watcher(stream: str) -> Watcher:
    """A watcher of a database. Its subjects are those that the places' streams take."""
    sink = {"stream": stream, "subject": "{stream}.{collection}-{operation}"}
    checkpoint = {"collection": "shop"}
    return from_document({"name": "shop", "source": {"database": "shop"}, "sink": sink, "checkpoint": checkpoint})


def made(watcher: Watcher, moment: int, collection: str = "", *, database: str = "shop", epoch: int = 0) -> Change:
    token, operation = event_token(moment), OPERATIONS[moment % 4]
    collection = collection or f"c.{moment % 7}"
    body = b'{"n":%d,"ns":{"db":"%s","coll":"%s"}}' % (moment, database.encode(), collection.encode())
    subject = watcher.subjects.subject(database, collection, operation)
    return Change(token, operation, body, 0.0, str(MessageId(token, epoch)), subject)


def stored(*changes: Change) -> list[Stored]:
    return [(one.subject, one.id, one.body) for one in changes]


async def test_changes_of_many_collections_are_stored_once_in_one_order_each_on_its_subject(
    place: Place, sink: EventSink, watcher: Watcher, stream: str
) -> None:
    batch = [made(watcher, moment) for moment in range(1, 301)]
    sequence = await fence(sink)
    for begin, end in ((0, 150), (150, 151), (151, 300)):
        sequence = await sink.publish(batch[begin:end], sequence)
    assert await place.messages() == stored(*batch)
    assert sequence == await fence(sink)
    assert batch[0].subject == f"{stream}.c%2E1-update"


async def test_the_end_is_that_of_all_collections(place: Place, sink: EventSink, watcher: Watcher) -> None:
    await sink.publish([made(watcher, 1, "a"), made(watcher, 2, "b")], await fence(sink))
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence, tail.foreign) == (event_token(2), 2, 0)


async def test_one_fence_holds_for_all_collections(place: Place, sink: EventSink, watcher: Watcher) -> None:
    """A second writer is behind as soon as the first has published anything, whatever its collection is."""
    other = place.sink(watcher)
    await other.prepare(may_create=False)
    before = await fence(other)
    ours = made(watcher, 1, "a")
    await sink.publish([ours], await fence(sink))
    with pytest.raises(Exception, match=r"(?i)sequence|writer|fence") as refused:
        await other.publish([made(watcher, 2, "b")], before)
    assert type(refused.value).__name__ == "FenceLost"
    assert await place.messages() == stored(ours)
    await other.close()


async def test_another_databases_message_is_foreign_and_the_end_is_found_behind_it(
    place: Place, sink: EventSink, watcher: Watcher, stream: str
) -> None:
    ours = made(watcher, 2, "b")
    await sink.publish([made(watcher, 1, "a"), ours], await fence(sink))
    await sink.publish([made(watcher, 9, "a", database="crm")], await fence(sink))
    await place.foreign(f"{stream}.b-insert")
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence, tail.foreign) == (ours.token, 2, 2)
    after = made(watcher, 10, "c")
    await sink.publish([after], tail.fence(exclusive=sink.exclusive))
    assert (await place.messages())[-1] == stored(after)[0]


@pytest.mark.parametrize("unbegun", PIPELINED, indirect=True)
async def test_sends_of_many_collections_are_stored_in_order_also_where_more_was_to_come(
    place: Place, sink: EventSink, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.FLOW", 8)
    batch, sequence = [made(watcher, moment) for moment in range(1, 121)], await fence(sink)
    sent = []
    for begin in range(0, 120, 20):
        unit = batch[begin : begin + 20]
        async with asyncio.timeout(15):
            await sink.ready(unit)
        sent.append(sink.send(unit, sequence + begin, more=True))
    sink.settle()
    async with asyncio.timeout(15):
        assert await asyncio.gather(*sent) == [sequence + end for end in range(20, 121, 20)]
    assert await place.messages() == stored(*batch)
