"""What every `EventSink` promises of reading back: the stream's end, what follows a sequence, and what is there."""

from dataclasses import replace

import pytest

from app.domain.dead_letters import Following
from app.domain.errors import OutcomeUnknown, StreamRefused, StreamUnsuitable
from app.domain.position import OwnMessage
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher
from app.ports import EventSink
from tests.contract.sink.conftest import PIPELINED
from tests.contract.sink.places import FakePlace, Place, change, fence, stored
from tests.fakes import event_token


def test_modes_are_those_that_the_place_is_for(place: Place, sink: EventSink, request: pytest.FixtureRequest) -> None:
    wanted = {"few": "atomic", "fake-atomic": "atomic", "shared-atomic": "atomic"} | dict.fromkeys(
        ("created", "scripted", "fake"), "fast_ingest"
    )
    name = request.node.callspec.params["unbegun"]
    assert sink.mode == wanted.get(name, name)
    assert sink.exclusive is (name not in ("shared-atomic", "single"))
    assert sink.pipelined is (name in PIPELINED)


async def test_an_empty_stream_has_an_empty_end(place: Place, sink: EventSink) -> None:
    tail = await sink.tail()
    assert (tail.last_sequence, tail.space_sequence, tail.own, tail.foreign, tail.unsearched) == (0, 0, None, 0, False)
    assert tail.created


async def test_a_message_is_there_or_another_or_none(place: Place, sink: EventSink, stream: str) -> None:
    batch = [change(moment, epoch=1) for moment in (1, 2)]
    await sink.publish(batch, await fence(sink))
    await place.foreign(f"{stream}.insert")
    first, second = (MessageId(one.token, 1) for one in batch)
    assert await sink.holds(OwnMessage(1, first))
    assert await sink.holds(OwnMessage(2, second))
    assert await sink.holds(OwnMessage(2, first)) is False
    assert await sink.holds(OwnMessage(1, MessageId(batch[0].token))) is False
    assert await sink.holds(OwnMessage(3, second)) is False
    assert await sink.holds(OwnMessage(4, second)) is None
    await place.purge()
    assert await sink.holds(OwnMessage(1, first)) is None


async def test_the_end_tells_position_and_epoch(place: Place, sink: EventSink) -> None:
    last = change(3, epoch=2)
    await sink.publish([change(1, epoch=2), change(2, "delete", epoch=2), last], await fence(sink))
    tail = await sink.tail()
    assert tail.own is not None
    assert tail.own.id == MessageId(last.token, 2)
    assert tail.own.sequence == tail.space_sequence == tail.last_sequence == 3


async def test_a_purge_keeps_the_last_sequence_and_the_creation_time(place: Place, sink: EventSink) -> None:
    await sink.publish([change(1), change(2)], await fence(sink))
    created = (await sink.tail()).created
    await place.purge()
    tail = await sink.tail()
    assert (tail.created, tail.last_sequence, tail.space_sequence, tail.own) == (created, 2, 0, None)


async def test_a_message_of_another_collection_is_nobodys_progress(place: Place, sink: EventSink, stream: str) -> None:
    await sink.publish([change(1), change(2)], await fence(sink))
    await sink.publish([change(9, collection="items")], await fence(sink))
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence, tail.foreign) == (event_token(2), 2, 1)


async def test_the_end_is_found_behind_foreign_messages(place: Place, sink: EventSink, stream: str) -> None:
    ours = change(2)
    await sink.publish([change(1), ours], await fence(sink))
    for subject in (f"{stream}.insert", f"{stream}.somebody", f"{stream}.insert"):
        await place.foreign(subject)
    tail = await sink.tail()
    assert tail.own is not None
    assert (tail.own.id.position, tail.own.sequence) == (ours.token, 2)
    assert (tail.foreign, tail.unsearched, tail.space_sequence) == (3, False, 5)
    after = change(3)
    await sink.publish([after], tail.fence(exclusive=sink.exclusive))
    assert (await place.messages())[-1] == stored(after, stream=stream)[0]


async def test_the_end_is_searched_for_no_further_than_what_is_known(
    place: Place, sink: EventSink, stream: str
) -> None:
    await sink.publish([change(1), change(2)], await fence(sink))
    for _ in range(150):
        await place.foreign(f"{stream}.insert")
    for since in (0, 1):
        tail = await sink.tail(since=since)
        assert tail.own is not None
        assert (tail.own.sequence, tail.foreign, tail.unsearched) == (2, 150, False)
    for since, foreign in ((2, 150), (100, 52)):
        tail = await sink.tail(since=since)
        assert (tail.own, tail.foreign, tail.unsearched) == (None, foreign, False)


async def test_a_deleted_stream_is_refused_and_not_made_again_unasked(
    place: Place, sink: EventSink, watcher: Watcher
) -> None:
    await sink.publish([change(1)], await fence(sink))
    await place.delete()
    with pytest.raises(StreamRefused, match="does not exist"):
        await sink.tail()
    with pytest.raises((OutcomeUnknown, StreamRefused)):
        await sink.publish([change(2), change(3)], 1)
    with pytest.raises(StreamRefused, match="does not exist"):
        await place.sink(watcher).prepare(may_create=False)


async def test_a_stream_that_is_recreated_has_another_creation_time(
    place: Place, sink: EventSink, watcher: Watcher
) -> None:
    if isinstance(place, FakePlace):
        pytest.skip("the fake's creation time is set by hand")
    before = (await sink.tail()).created
    await place.delete()
    again = place.sink(watcher)
    await again.prepare(may_create=True)
    assert (await again.tail()).created != before


async def test_a_stream_without_the_watchers_subjects_is_unsuitable(
    place: Place, sink: EventSink, watcher: Watcher
) -> None:
    elsewhere = replace(watcher, sink=replace(watcher.sink, subject="elsewhere.{operation}"))
    with pytest.raises(StreamUnsuitable, match="subjects"):
        await place.sink(elsewhere).prepare(may_create=True)


async def test_what_follows_a_sequence_is_the_next_message_of_the_watchers(
    place: Place, sink: EventSink, stream: str
) -> None:
    created = (await sink.tail()).created
    before = await fence(sink)
    assert await sink.following(before) == Following(created)
    replay = replace(change(1), id=str(MessageId(event_token(1), 0, event_token(9))))
    await sink.publish([replay], before)
    await sink.publish([change(2)], await fence(sink))
    first = Following(created, 1, MessageId(event_token(1), 0, event_token(9)), there=True, moved=True)
    assert await sink.following(before) == first
    assert (await sink.following(1)).id == MessageId(event_token(2))
    assert await sink.following(2) == Following(created)
    await place.foreign(f"{stream}.insert")
    foreign = await sink.following(2)
    assert (foreign.id, foreign.there, foreign.moved, foreign.whole) == (None, True, True, True)
    await place.purge()
    gone = await sink.following(before)
    assert (gone.id, gone.there, gone.whole) == (None, False, False)
    assert (await sink.following(3)).whole


async def test_a_message_is_found_in_its_place(place: Place, sink: EventSink, stream: str) -> None:
    assert not await sink.published(MessageId(event_token(1)))
    for epoch, moments in ((0, (1, 2, 5, 6)), (2, (2, 3, 5))):
        for moment in moments:
            await sink.publish([change(moment, epoch=epoch)], await fence(sink))
            if moment == 5:
                replay = replace(change(5), id=str(MessageId(event_token(5), epoch, event_token(4))))
                await sink.publish([replay], await fence(sink))
                await place.foreign(f"{stream}.insert")
        for moment in range(1, 8):
            assert await sink.published(MessageId(event_token(moment), epoch)) is (moment in moments)
    assert await sink.published(MessageId(event_token(6)))
    assert not await sink.published(MessageId(event_token(3)))
