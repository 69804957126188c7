"""A change stream's cursor over each kind of target on a real mongod: what comes, and what is left on the server."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import bson
import pytest
import pytest_asyncio
from motor.frameworks.asyncio import _EXECUTOR
from pymongo.errors import OperationFailure

from app.devservers.servers import MongoServer
from app.domain.tokens import cluster_time
from app.mongodb.connection import connect
from app.mongodb.cursor import ChangeStreamCursor, CursorBatch
from app.mongodb.stream import Target, after_token, at_time_of
from tests.integration.mongodb.bench import Client, Event
from tests.live import until

OpenCursors = Callable[[], int]
MakeCursor = Callable[..., ChangeStreamCursor]
WAIT_MS = 100


@pytest_asyncio.fixture
async def make_cursor() -> AsyncIterator[MakeCursor]:
    """`make_cursor(uri, target)`, closed after the test."""
    made: list[tuple[Any, ChangeStreamCursor]] = []

    def make(uri: str, target: Target) -> ChangeStreamCursor:
        client = connect(uri)
        made.append((client, ChangeStreamCursor(client, target)))
        return made[-1][1]

    yield make
    for client, cursor in made:
        await cursor.close()
        client.close()


@pytest.fixture(autouse=True)
def neighbour(client: Client, database: str) -> Iterator[str]:
    """Another database."""
    yield f"{database}_2"
    client.drop_database(f"{database}_2")


@pytest.fixture(params=["collection", "database", "deployment"])
def target(request: pytest.FixtureRequest, database: str) -> Target:
    return {"collection": Target(database, "orders"), "database": Target(database), "deployment": Target()}[
        request.param
    ]


def seen_by(target: Target, ours: str, written: list[str]) -> list[str]:
    """Those of the written namespaces that belong to the target."""
    if target.collection:
        return [namespace for namespace in written if namespace == f"{ours}.orders"]
    if target.database:
        return [namespace for namespace in written if namespace.startswith(f"{ours}.")]
    return written


def write(client: Client, database: str, neighbour: str, count: int = 2) -> list[str]:
    """Insert into three collections by turns; the namespaces in this order."""
    written = []
    for _ in range(count):
        for name, collection in ((database, "orders"), (database, "users"), (neighbour, "orders")):
            client[name][collection].insert_one({})
            written.append(f"{name}.{collection}")
    return written


class Reading:
    """A cursor and what has come out of it; other tests' databases, which a deployment shows as well, are left out."""

    def __init__(self, cursor: ChangeStreamCursor, target: Target, *databases: str) -> None:
        self.cursor = cursor
        self.target = target
        self.databases = databases
        self.events: list[Event] = []
        self.batches: list[CursorBatch] = []

    async def open(self, start: dict[str, Any], *stages: dict[str, Any], size: int = 2) -> str:
        """Open and return the first batch's token."""
        batch = await self.cursor.open([self.target.change_stream(start), *stages], size=size)
        self._take(batch)
        return batch.token

    async def more(self, size: int = 2) -> list[Event]:
        return self._take(await self.cursor.get_more(size=size, wait_ms=WAIT_MS))

    async def read(self, count: int) -> list[Event]:
        async def enough() -> bool:
            if len(self.events) < count:
                await self.more()
            return len(self.events) >= count

        await until(enough)
        return self.events

    def _take(self, batch: CursorBatch) -> list[Event]:
        self.batches.append(batch)
        came = [bson.decode(raw) for raw in batch.events]
        self.events += [event for event in came if event.get("ns", {}).get("db") in self.databases]
        return came


def namespaces(events: list[Event]) -> list[str]:
    return [f"{event['ns']['db']}.{event['ns']['coll']}" for event in events if event["operationType"] == "insert"]


@pytest.fixture
def reading(make_cursor: MakeCursor, mongo_uri: str, target: Target, database: str, neighbour: str) -> Reading:
    return Reading(make_cursor(mongo_uri, target), target, database, neighbour)


async def test_a_target_brings_the_changes_of_all_that_is_in_it_and_of_nothing_else(
    reading: Reading, client: Client, database: str, neighbour: str
) -> None:
    await reading.open({})
    written = write(client, database, neighbour)
    expected = seen_by(reading.target, database, written)
    assert namespaces(await reading.read(len(expected))) == expected
    assert await reading.more() == [] or reading.target == Target()


async def test_after_a_token_or_at_its_time_it_reads_on(
    reading: Reading, client: Client, database: str, neighbour: str
) -> None:
    await reading.open({})
    expected = seen_by(reading.target, database, write(client, database, neighbour))
    tokens = [event["_id"]["_data"] for event in await reading.read(len(expected))]
    reading.events.clear()
    await reading.open(after_token(tokens[0]))
    assert [event["_id"]["_data"] for event in await reading.read(len(expected) - 1)] == tokens[1:]
    reading.events.clear()
    await reading.open(at_time_of(tokens[1]))
    assert [event["_id"]["_data"] for event in await reading.read(len(expected) - 1)] == tokens[1:]


async def test_a_batch_is_bounded_raw_and_covered_by_its_token(
    reading: Reading, client: Client, database: str, neighbour: str
) -> None:
    begin = await reading.open({})
    expected = seen_by(reading.target, database, write(client, database, neighbour, count=4))
    await reading.read(len(expected))
    for batch in reading.batches:
        assert len(batch.events) <= 2
        assert all(type(event) is bytes for event in batch.events)
        assert all(begin <= bson.decode(event)["_id"]["_data"] <= batch.token for event in batch.events)
        assert batch.operation_time >= cluster_time(batch.token).seconds - 1
    tokens = [batch.token for batch in reading.batches]
    assert tokens == sorted(tokens)


async def test_a_change_has_one_token_over_every_target(
    make_cursor: MakeCursor, mongo_uri: str, client: Client, database: str, neighbour: str
) -> None:
    targets = (Target(database, "orders"), Target(database), Target())
    readings = [Reading(make_cursor(mongo_uri, one), one, database, neighbour) for one in targets]
    for reading in readings:
        await reading.open({})
    written = write(client, database, neighbour)
    tokens = []
    for reading in readings:
        events = await reading.read(len(seen_by(reading.target, database, written)))
        orders = [event for event in events if event["ns"] == {"db": database, "coll": "orders"}]
        tokens.append([event["_id"]["_data"] for event in orders])
    assert len(tokens[0]) == 2
    assert tokens[0] == tokens[1] == tokens[2]


async def test_an_invalidate_ends_the_cursor_and_the_stream_is_opened_again_behind_it(
    make_cursor: MakeCursor, mongo_uri: str, client: Client, database: str
) -> None:
    target = Target(database, "orders")
    reading = Reading(make_cursor(mongo_uri, target), target, database)
    client[database].orders.insert_one({})
    await reading.open({})
    client[database].orders.drop()

    async def ended() -> bool:
        if reading.cursor.is_open:
            await reading.more()
        return not reading.cursor.is_open

    await until(ended)
    client[database].orders.insert_one({"_id": 2})
    await reading.open(after_token(reading.batches[-1].token))
    assert reading.cursor.is_open
    assert [event["documentKey"] for event in await reading.read(2) if "documentKey" in event] == [{"_id": 2}]


async def test_a_refused_stage_is_raised_as_it_came_and_the_cursor_can_be_opened_again(reading: Reading) -> None:
    with pytest.raises(OperationFailure) as refused:
        await reading.open({}, {"$nonsense": 1})
    assert refused.value.code == 40324
    assert not reading.cursor.is_open
    await reading.open({})
    assert reading.cursor.is_open


@pytest.fixture
def open_cursors(own_mongo: MongoServer) -> Iterator[OpenCursors]:
    with Client(own_mongo.uri) as client:
        yield lambda: int(client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a close waits for the command that is under way."""
    monkeypatch.setattr("app.mongodb.cursor.CLOSE_SECONDS", 30.0)


async def cancelled(working: Awaitable[Any], turns: int) -> None:
    task = asyncio.ensure_future(working)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))


@pytest.mark.usefixtures("patient")
async def test_ended_closed_opened_again_or_cancelled_it_leaves_no_cursor_on_the_server(
    make_cursor: MakeCursor, own_mongo: MongoServer, open_cursors: OpenCursors, target: Target
) -> None:
    cursor = make_cursor(own_mongo.uri, target)
    stages = [target.change_stream({})]
    await cursor.open(stages, size=1)
    assert open_cursors() == 1
    await cursor.open(stages, size=1)
    assert open_cursors() == 1, "opened again, it has ended the cursor before"
    await cursor.end()
    assert open_cursors() == 0
    await cursor.open(stages, size=1)
    await cursor.close()
    await cursor.close()
    assert open_cursors() == 0
    for turns in range(4):
        await cancelled(cursor.open(stages, size=1), turns)
        await cursor.close()
        assert open_cursors() == 0
        await cursor.open(stages, size=1)
        await cancelled(cursor.get_more(size=1, wait_ms=500), turns)
        await cursor.close()
        assert open_cursors() == 0


@pytest.mark.usefixtures("patient")
async def test_a_close_that_is_cancelled_ends_the_cursor_all_the_same(
    make_cursor: MakeCursor, own_mongo: MongoServer, open_cursors: OpenCursors
) -> None:
    """Where motor's threads are busy, a command whose caller is cancelled would not even be sent."""
    cursor, free = make_cursor(own_mongo.uri, Target("shop")), threading.Event()
    await cursor.open([Target("shop").change_stream({})], size=1)
    busy = [_EXECUTOR.submit(free.wait, 30) for _ in range(_EXECUTOR._max_workers)]
    try:
        closing = asyncio.ensure_future(cursor.close())
        for _ in range(4):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
    finally:
        free.set()
    await asyncio.wait((closing,))
    assert closing.cancelled()
    assert open_cursors() == 0
    assert all(each.result() for each in busy)


async def test_a_command_that_does_not_come_back_in_time_ends_later_without_a_word(
    make_cursor: MakeCursor, own_mongo: MongoServer, open_cursors: OpenCursors
) -> None:
    """A `getMore` on a quiet server notices only when its time is over that its cursor was killed."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    target = Target("shop", "orders")
    cursor = make_cursor(own_mongo.uri, target)

    async def left_alone() -> bool:
        await cursor.open([target.change_stream({})], size=1)
        await cancelled(cursor.get_more(size=1, wait_ms=4_000), turns=3)
        await cursor.close()
        return open_cursors() > 0  # not so while the server still writes for itself, which wakes what waits

    await until(left_alone)
    await until(lambda: open_cursors() == 0)
    await asyncio.sleep(0.1)  # for the reply, which nobody waits for
    gc.collect()
    assert complaints == []
