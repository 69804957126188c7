"""What every `EventSink` promises, asked of the real adapter in each of its modes and of the fake.

To plug another implementation in, write a `Place` and add it to `places`. Every test looks at what the stream holds in
the end. What only a real server can do wrong is in `tests/integration/jetstream/`.
"""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import pytest
import pytest_asyncio

from app.devservers.servers import NatsServer
from app.domain.dead_letters import Following
from app.domain.errors import FenceLost, OutcomeUnknown, SeenBefore, StreamFull, StreamRefused, StreamUnsuitable
from app.domain.events import Change
from app.domain.position import OwnMessage
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher, from_document
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.frames import read_headers
from app.jetstream.stream_api import StreamApi
from app.ports import EventSink
from tests.fakes import FakeSink, FakeStream, event_token

Stored = tuple[str, str, bytes]
"""Subject, message id and body."""

USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>"]}}}
] }
"""


class Place(Protocol):
    """A stream under test. `begin` makes it as the mode needs it; what is foreign does not come from a sink."""

    async def begin(self, stream: str) -> None: ...
    def sink(self, watcher: Watcher) -> EventSink: ...
    async def messages(self) -> list[Stored]: ...
    async def foreign(self, subject: str) -> None: ...
    async def purge(self) -> None: ...
    async def delete(self) -> None: ...
    async def limit(self, messages: int) -> None: ...
    async def objects(self) -> int: ...
    async def close(self) -> None: ...


class RealPlace:
    """A stream on a real server.

    A window and single messages are what is left where the account may not switch atomic batches on; the latter where
    the stream has other subjects too.
    """

    def __init__(self, server: NatsServer, mode: str) -> None:
        url = server.url
        self._admin = NatsConnection(NatsOptions((url,), user="admin", password="secret"))
        self._service = NatsConnection(NatsOptions((url,), user="limited", password="secret"))
        self._api = StreamApi(self._admin)
        self._mode = mode
        self._name = ""

    async def begin(self, stream: str) -> None:
        self._name = stream
        for connection in (self._admin, self._service):
            connection.start()
            await connection.ready(5)
        if self._mode != "created":
            subjects = [f"{stream}.*"] + (
                [f"other.{stream}"] if self._mode.startswith("shared") or self._mode == "single" else []
            )
            atomic = self._mode in ("atomic", "shared-atomic")
            await self._api.create(
                {"name": stream, "subjects": subjects, "storage": "file", "num_replicas": 1, "allow_atomic": atomic}
            )

    def sink(self, watcher: Watcher) -> EventSink:
        return JetStream(self._service).sink(watcher)

    async def messages(self) -> list[Stored]:
        found = []
        last = (await self._api.info(self._name)).state["last_seq"]
        for sequence in range(1, last + 1):
            try:
                message = (await self._api.call(f"STREAM.MSG.GET.{self._name}", {"seq": sequence}))["message"]
            except Exception:
                continue
            id_ = read_headers(b64decode(message.get("hdrs", ""))).get("Nats-Msg-Id", "")
            found.append((message["subject"], id_, b64decode(message.get("data", ""))))
        return found

    async def foreign(self, subject: str) -> None:
        assert await self._admin.request(subject, b"foreign")

    async def purge(self) -> None:
        await self._api.call(f"STREAM.PURGE.{self._name}")

    async def delete(self) -> None:
        await self._api.call(f"STREAM.DELETE.{self._name}")

    async def limit(self, messages: int) -> None:
        config = (await self._api.info(self._name)).config
        await self._api.update({**config, "discard": "new", "max_msgs": messages})

    async def objects(self) -> int:
        names = (await self._api.call("STREAM.NAMES"))["streams"]
        counts = [(await self._api.info(n)).state["num_subjects"] for n in names if n.startswith("OBJ_S__")]
        return sum(count - 1 for count in counts)  # a chunk's subject and a meta subject for each

    async def close(self) -> None:
        for name in (await self._api.call("STREAM.NAMES")).get("streams") or ():
            await self._api.call(f"STREAM.DELETE.{name}")
        await self._service.close()
        await self._admin.close()


class FakePlace:
    """The fake of `tests/fakes/`."""

    def __init__(self) -> None:
        self._stream = FakeStream()

    async def begin(self, stream: str) -> None:
        self._stream = FakeStream(name=stream, subjects=[f"{stream}.*"], exists=False)

    def sink(self, watcher: Watcher) -> EventSink:
        return FakeSink(self._stream, watcher)

    async def messages(self) -> list[Stored]:
        return [(m.subject, m.change.id, m.change.body) for m in self._stream.messages]

    async def foreign(self, subject: str) -> None:
        change = Change("", "insert", b"foreign", 0.0, "")
        self._stream.store([(subject, change)], self._stream.last_sequence, subject)
        self._stream.ids.discard("")

    async def purge(self) -> None:
        self._stream.purge()

    async def delete(self) -> None:
        self._stream.exists = False

    async def limit(self, messages: int) -> None:
        self._stream.max_messages = messages

    async def objects(self) -> int:
        return len(self._stream.objects)

    async def close(self) -> None:
        return


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def restricted_nats() -> AsyncIterator[NatsServer]:
    """A server with an account that may do anything, and one that may not update streams."""
    async with NatsServer(config=USERS) as server:
        yield server


places = ["created", "atomic", "shared-atomic", "few", "window", "single", "fake"]


@pytest.fixture(params=places)
def unbegun(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One of the implementations; the fake needs no server. `few` is `atomic` with batches so small that they go one by
    one; elsewhere each batch of two is an atomic one."""
    if request.param == "fake":
        return FakePlace()
    if request.param != "few":
        monkeypatch.setattr("app.jetstream.publish.atomic.FEW", 1)
    return RealPlace(request.getfixturevalue("restricted_nats"), request.param.replace("few", "atomic"))


@pytest_asyncio.fixture
async def place(unbegun: Place, stream: str) -> AsyncIterator[Place]:
    await unbegun.begin(stream)
    yield unbegun
    await unbegun.close()


@pytest.fixture
def watcher(stream: str) -> Watcher:
    return from_document(
        {"name": "orders", "source": {"database": "shop", "collection": "orders"}, "sink": {"stream": stream}}
    )


@pytest_asyncio.fixture
async def sink(place: Place, watcher: Watcher) -> AsyncIterator[EventSink]:
    made = place.sink(watcher)
    await made.prepare(may_create=True)
    yield made
    await made.close()


def change(moment: int, operation: str = "insert", epoch: int = 0, *, collection: str = "orders") -> Change:
    token = event_token(moment)
    body = b'{"n":%d,"ns":{"db":"shop","coll":"%s"}}' % (moment, collection.encode())
    return Change(token, operation, body, 0.0, str(MessageId(token, epoch)))


def stored(*changes: Change, stream: str) -> list[Stored]:
    return [(f"{stream}.{one.operation}", one.id, one.body) for one in changes]


async def fence(sink: EventSink) -> int:
    return (await sink.tail()).fence(exclusive=sink.exclusive)


def test_modes_are_those_that_the_place_is_for(place: Place, sink: EventSink, request: pytest.FixtureRequest) -> None:
    wanted = {"created": "atomic", "few": "atomic", "fake": "atomic", "shared-atomic": "atomic"}
    name = request.node.callspec.params["unbegun"]
    assert sink.mode == wanted.get(name, name)
    assert sink.exclusive is (name not in ("shared-atomic", "single"))


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


async def test_after_a_purge_a_stream_of_its_own_refuses_whoever_believes_it_to_be_new(
    place: Place, sink: EventSink, stream: str
) -> None:
    if not sink.exclusive:
        pytest.skip("a fence by subject cannot tell a purged stream from a new one")
    await sink.publish([change(1), change(2)], await fence(sink))
    await place.purge()
    with pytest.raises(FenceLost):
        await sink.publish([change(3), change(4)], 0)
    assert await place.messages() == []


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


async def test_a_stream_made_anew_has_another_creation_time(place: Place, sink: EventSink, watcher: Watcher) -> None:
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


async def test_a_change_that_is_not_too_large_is_taken_by_the_server(place: Place, sink: EventSink) -> None:
    limit = 1024 * 1024
    sizes = range(limit - 1500, limit + 2)
    largest = max(n for n in sizes if not sink.too_large(replace(change(1), body=b"x" * n)))
    assert sink.too_large(replace(change(1), body=b"x" * (largest + 1)))
    long = [replace(change(moment), body=b"x" * largest) for moment in (1, 2, 3)]
    assert await sink.publish(long, await fence(sink)) == 3


async def test_an_id_that_the_headers_do_not_hold_leaves_no_room_and_the_longest_that_they_hold_is_taken(
    place: Place, sink: EventSink
) -> None:
    def long(length: int) -> Change:
        token = f"82{'A' * (length - 2)}"
        return replace(change(1), token=token, id=token)

    for length in (66_000, 400_000, 1_200_000):
        assert sink.too_large(long(length))
        assert sink.room(long(length)) < 0
    longest = max(length for length in range(64_000, 65_600) if not sink.too_large(long(length)))
    assert sink.room(long(longest - 200)) > 900_000
    assert await sink.publish([long(longest)], await fence(sink)) == 1
    assert await sink.publish([change(moment) for moment in (2, 3)], 1) == 3


async def test_a_claim_check_leaves_a_pointer_and_may_be_repeated(place: Place, sink: EventSink) -> None:
    large = replace(change(1), body=b"x" * 3_000_000, pointer=b"{}")
    first = await sink.claim_check(large, b"{}")
    second = await sink.claim_check(large, b"{}")
    assert first == second
    assert (first.body, first.pointer, first.token, first.id) == (b"{}", None, large.token, large.id)
    [(name, value)] = first.headers
    assert name == "Changewire-Object"
    assert value.endswith(f"/{large.token}")
    assert await place.objects() == 1
    assert await sink.publish([first, change(2)], await fence(sink)) == 2


async def test_a_pointer_has_the_room_that_is_said(place: Place, sink: EventSink) -> None:
    large = replace(change(1), body=b"x" * 3_000_000, headers=(("Changewire-Reduced", "fullDocument"),))
    room = sink.room(large)
    assert room > 1_000_000
    pointer = await sink.claim_check(large, b"x" * room)
    assert not sink.too_large(pointer)
    assert [name for name, _ in pointer.headers] == ["Changewire-Reduced", "Changewire-Object"]
    assert await sink.publish([pointer], await fence(sink)) == 1


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


async def test_closing_twice_is_harmless(sink: EventSink) -> None:
    await sink.close()
    await sink.close()
