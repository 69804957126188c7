"""How much a watcher's stream reads at once and how long it waits, and how it gets past an event that is too large.

The cursor is scripted: it holds a list of events and refuses a batch with a large one, as a server does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import bson
import pytest
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

from app.domain.errors import SourceRefused, SourceUnavailable
from app.domain.watcher import Source
from app.mongodb.cursor import CursorBatch
from app.mongodb.large_event_reader import LargeEventReader
from app.mongodb.stream import StreamRequest, after_token
from app.mongodb.watcher_stream import AWAIT_MOST_MS, AWAIT_MS, BATCH_BYTES, HURRIED_MS, Pace, WatcherStream
from app.ports import SourceBatch
from tests.fakes import BEGIN, event_token

SOURCE = Source("shop", "orders")


def event(moment: int, **more: Any) -> dict[str, Any]:
    return {
        "_id": {"_data": event_token(moment)}, "operationType": "update", "clusterTime": Timestamp(BEGIN + moment, 1),
        "ns": {"db": "shop", "coll": "orders"}, "documentKey": {"_id": moment}, **more,
    }  # fmt: skip


class ScriptedCursor:
    """A `ChangeStreamCursor` over a list of events. `large` are the moments of events that cannot be sent whole."""

    def __init__(self, *events: dict[str, Any], large: Sequence[int] = (), smallest: int = 1) -> None:
        """`smallest` is how many fields a large event has to lose."""
        self.events = list(events)
        self.large = set(large)
        self.smallest = smallest
        self.is_open = False
        self.sizes: list[int] = []
        self.waits: list[int] = []
        self.ended = 0
        self._rest: list[dict[str, Any]] = []
        self._dropped: list[str] = []

    async def open(self, stages: Sequence[Mapping[str, Any]], *, size: int) -> CursorBatch:
        if "$changeStreamSplitLargeEvent" in stages[-1]:
            raise OperationFailure("unrecognized stage", 40324)
        start = stages[0]["$changeStream"]
        after = start.get("startAfter", {}).get("_data", "")
        moment = start.get("startAtOperationTime", Timestamp(0, 1))
        self._dropped = stages[-1].get("$unset", [])
        self._rest = [one for one in self.events if one["_id"]["_data"] > after and one["clusterTime"] >= moment]
        self.is_open = True
        return self._next(size)

    async def get_more(self, *, size: int, wait_ms: int) -> CursorBatch:
        self.waits.append(wait_ms)
        return self._next(size)

    def forget(self) -> None:
        self.is_open = False

    async def end(self) -> None:
        self.ended += self.is_open
        self.is_open = False

    def _next(self, size: int) -> CursorBatch:
        self.sizes.append(size)
        batch, self._rest = self._rest[:size], self._rest[size:]
        if len(self._dropped) < self.smallest and any(one["documentKey"]["_id"] in self.large for one in batch):
            raise OperationFailure("BSONObj size is invalid", 10334)
        raw = [bson.encode({name: one[name] for name in one if name not in self._dropped}) for one in batch]
        return CursorBatch(raw, batch[-1]["_id"]["_data"] if batch else event_token(99), BEGIN)


def stream(cursor: ScriptedCursor, *, after: int = 0, batch_size: int = 3, source: Source = SOURCE) -> WatcherStream:
    return WatcherStream(StreamRequest(source), cursor, event_token(after), Pace(batch_size))  # type: ignore[arg-type]


def keys(batch: SourceBatch) -> list[int]:
    return [bson.decode(raw)["documentKey"]["_id"] for raw in batch.events]


def test_a_read_asks_for_as_many_events_as_bring_about_four_mebibytes() -> None:
    pace = Pace(500)
    assert pace.ask_for == 500
    pace.came(100, 100 * BATCH_BYTES // 50)
    assert pace.ask_for == 50
    pace.came(0, 0)
    assert pace.ask_for == 50
    pace.came(1, 3 * BATCH_BYTES)
    assert pace.ask_for == 1
    pace.came(1, 10)
    assert pace.ask_for == 500


async def test_a_hurried_read_waits_a_moment_once_and_the_others_as_before() -> None:
    cursor = ScriptedCursor()
    pace = Pace(500)
    stream = WatcherStream(StreamRequest(SOURCE), cursor, event_token(0), pace)  # type: ignore[arg-type]  # it is scripted
    await stream.begin(after_token(event_token(0)))
    await stream.next()
    pace.hurried = True
    for _ in range(3):
        await stream.next()
    assert cursor.waits == [AWAIT_MS, HURRIED_MS, 2 * AWAIT_MS, 4 * AWAIT_MS]


def test_the_longer_nothing_comes_the_longer_it_waits_and_one_event_ends_that() -> None:
    pace = Pace(500)
    waits = []
    for _ in range(6):
        waits.append(pace.wait_ms)
        pace.waited(0, moved=True)
    assert waits == [AWAIT_MS, 1000, 2000, AWAIT_MOST_MS, AWAIT_MOST_MS, AWAIT_MOST_MS]
    pace.waited(1, moved=True)
    assert pace.wait_ms == AWAIT_MS


def test_a_read_that_is_hurried_in_vain_waits_longer_each_time() -> None:
    pace = Pace(500)
    waits = []
    for _ in range(7):
        pace.hurried = True
        waits.append(pace.patience_ms)
        pace.waited(0, moved=False)
    assert waits == [HURRIED_MS, 40, 80, 160, 320, AWAIT_MS, AWAIT_MS]
    assert pace.patience_ms == AWAIT_MS  # of one that is not hurried
    pace.hurried = True
    pace.waited(0, moved=True)
    pace.hurried = True
    assert pace.patience_ms == HURRIED_MS


async def test_a_read_brings_what_follows_and_moves_the_position() -> None:
    reading = stream(ScriptedCursor(*map(event, range(1, 6))))
    first = await reading.begin(reading.start)
    second = await reading.next()
    assert (keys(first), keys(second)) == ([1, 2, 3], [4, 5])
    assert (first.position, second.position) == (event_token(3), event_token(5))
    assert first.size == sum(map(len, first.events))


async def test_opened_by_time_it_skips_what_is_not_later_than_the_position() -> None:
    cursor = ScriptedCursor(event(1), event(2), event(3))
    reading = stream(cursor, after=2, batch_size=1)
    reading.skip()
    assert keys(await reading.begin(reading.start)) == []
    assert reading.skips
    assert keys(await reading.next()) == [3]
    assert not reading.skips
    assert reading.start == after_token(event_token(3))


async def test_what_the_server_ends_as_soon_as_it_is_opened_is_an_outage_and_no_busy_loop() -> None:
    class Ending(ScriptedCursor):
        async def open(self, stages: Sequence[Mapping[str, Any]], *, size: int) -> CursorBatch:
            return CursorBatch([], event_token(0), BEGIN)

    reading = stream(Ending())
    with pytest.raises(SourceUnavailable, match=r"shop\.orders as soon as it is opened"):
        await reading.begin(reading.start)


async def test_an_event_that_the_pipeline_made_useless_is_refused() -> None:
    source = Source("shop", "orders", pipeline=({"$set": {"a": 1}},))
    damaged = event(2) | {"operationType": "mine"}
    reading = stream(ScriptedCursor(event(1), damaged), source=source)
    before = await reading.begin(reading.start)
    assert (keys(before), before.position, reading.position) == ([1], event_token(1), event_token(1))
    with pytest.raises(SourceRefused, match="operationType"):
        await reading.next()
    reading = stream(ScriptedCursor(event(1), damaged), after=1, source=source)
    with pytest.raises(SourceRefused, match="operationType"):
        await reading.begin(reading.start)


DOCUMENTS = {"fullDocument": {"a": 1}, "fullDocumentBeforeChange": {"a": 0}, "updateDescription": {}}


async def read_all(reading: WatcherStream, reader: LargeEventReader, count: int) -> list[SourceBatch]:
    batches = [await reader.past(reading, reading.begin(reading.start))]
    while sum(len(batch.events) for batch in batches) < count:
        batches.append(await reader.past(reading, reading.next()))
    return [batch for batch in batches if batch.events]


@pytest.mark.parametrize("large", [1, 2, 3, 4, 5, 7])
async def test_a_large_event_comes_alone_in_its_place_and_what_is_around_it_as_ever(large: int) -> None:
    wanted = Source("shop", "orders", full_document_before_change="whenAvailable")
    cursor = ScriptedCursor(*(event(n, **DOCUMENTS) for n in range(1, 8)), large=[large])
    batches = await read_all(stream(cursor), LargeEventReader(wanted), 7)
    assert [key for batch in batches for key in keys(batch)] == list(range(1, 8))
    (reduced,) = [batch for batch in batches if batch.reduced]
    assert keys(reduced) == [large]
    assert reduced.reduced == ("fullDocumentBeforeChange",)
    assert "fullDocument" in bson.decode(reduced.events[0])


async def test_large_events_in_a_row_and_at_one_time_are_all_read() -> None:
    cursor = ScriptedCursor(*(event(n, **DOCUMENTS) for n in range(1, 8)), large=[2, 3, 4, 7])
    reading = stream(cursor, after=1)
    reading.skip()
    batches = await read_all(reading, LargeEventReader(SOURCE), 6)
    assert [key for batch in batches for key in keys(batch)] == [2, 3, 4, 5, 6, 7]


async def test_fields_are_left_out_until_it_can_be_sent_and_else_it_is_the_servers_error() -> None:
    wanted = Source("shop", "orders", full_document="updateLookup", full_document_before_change="whenAvailable")
    for smallest, left in ((2, []), (3, ["updateDescription"])):
        cursor = ScriptedCursor(event(1, **DOCUMENTS), large=[1], smallest=smallest)
        (batch,) = await read_all(stream(cursor), LargeEventReader(wanted), 1)
        assert batch.reduced == ("fullDocument", "fullDocumentBeforeChange", *left)
        assert not set(batch.reduced) & set(bson.decode(batch.events[0]))
    cursor = ScriptedCursor(event(1, **DOCUMENTS), large=[1], smallest=4)
    with pytest.raises(OperationFailure) as refused:
        await read_all(stream(cursor), LargeEventReader(wanted), 1)
    assert refused.value.code == 10334


async def test_after_a_large_event_batches_grow_again() -> None:
    cursor = ScriptedCursor(*(event(n, **DOCUMENTS) for n in range(1, 12)), large=[2])
    await read_all(stream(cursor), LargeEventReader(SOURCE), 11)
    assert cursor.sizes[-3:] == [3, 3, 3]
