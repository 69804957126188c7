"""A real mongod's change streams, with the server and the collection treated badly under the reader's hands."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio
from pymongo.server_description import ServerDescription
from pymongo.write_concern import WriteConcern

from app.devservers.servers import MongoServer
from app.domain.errors import (
    HistoryLost,
    Invalid,
    NotAuthorised,
    SourceRefused,
    SourceUnavailable,
    TokenRefused,
    TransientError,
)
from app.domain.tokens import cluster_time
from app.domain.watcher import Source, Start, Watcher
from app.mongodb import change_source, trial
from app.mongodb.client import OPTIONS, MongoDeployment
from app.ports import ChangeSource

SOCKET_SECONDS: float = OPTIONS["socketTimeoutMS"] / 1000
"""The driver's own patience with a connection: what takes less is noticed in another way."""

MakeMongo = Callable[..., Awaitable[MongoServer]]
Event = dict[str, Any]


class Bench:
    """One server's collection `orders`, a blocking client to write with, and sources that watch it."""

    def __init__(self, uri: str, database: str, *, batch_size: int = 500) -> None:
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.database = self.client[database]
        self.orders = self.database.get_collection("orders", write_concern=WriteConcern("majority"))
        self.deployment = MongoDeployment(uri, state_database="changewire", batch_size=batch_size)

    def source(self, **options: Any) -> change_source.MongoChangeSource:
        return self.deployment.source(Watcher("w", Source(self.database.name, "orders", **options)))

    def insert(self, *keys: int) -> None:
        for key in keys:
            self.orders.insert_one({"_id": key})

    def close(self) -> None:
        self.deployment.close()
        self.client.close()


MakeBench = Callable[..., Bench]


@pytest_asyncio.fixture
async def make_bench(database: str) -> AsyncIterator[MakeBench]:
    async with AsyncExitStack() as stack:

        def make(uri: str, **options: Any) -> Bench:
            bench = Bench(uri, database, **options)
            stack.callback(bench.close)
            return bench

        yield make


@pytest.fixture
def bench(make_bench: MakeBench, mongo_uri: str) -> Iterator[Bench]:
    bench = make_bench(mongo_uri, batch_size=2)
    yield bench
    bench.client.drop_database(bench.database.name)


async def opened(source: ChangeSource, start: Start | None = None) -> str:
    await source.prepare()
    position = await source.locate(start or Start("latest"))
    await source.open(position)
    return position


async def read_until(source: ChangeSource, enough: Callable[[list[Event]], bool], seconds: float = 20) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not enough(events):
        assert time.monotonic() < deadline, f"only {said(events)} came"
        events += [bson.decode(raw) for raw in (await source.read()).events]
    return events


def said(events: list[Event]) -> list[str | int]:
    """Inserts by their key, all else by its operation."""
    return [e["documentKey"]["_id"] if e["operationType"] == "insert" else e["operationType"] for e in events]


def last_is(key: int) -> Callable[[list[Event]], bool]:
    return lambda events: bool(events) and events[-1].get("documentKey") == {"_id": key}


async def no_more(source: ChangeSource) -> None:
    assert (await source.read()).events == []


async def test_a_dropped_and_re_created_collection_is_watched_on_from_every_position(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    bench.insert(1, 2, 3)
    bench.orders.drop()
    bench.insert(4)
    bench.orders.drop()
    bench.insert(5)
    events = await read_until(source, last_is(5))
    whole = [1, 2, 3, "drop", "invalidate", 4, "drop", "invalidate", 5]
    assert said(events) == whole
    for reached, event in enumerate(events[:-1], 1):
        await source.open(event["_id"]["_data"])
        assert said(await read_until(source, last_is(5))) == whole[reached:]
    await source.close()


async def test_a_renamed_collection_is_watched_on_under_its_name(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    bench.insert(1)
    bench.orders.rename("archive")
    bench.database.archive.insert_one({"_id": 99})
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, "rename", "invalidate", 2]
    await source.close()


async def test_an_invalidate_that_the_pipeline_hides_does_not_end_the_reading(bench: Bench) -> None:
    source = bench.source(pipeline=({"$match": {"operationType": "insert"}},))
    await opened(source)
    bench.insert(1)
    bench.orders.drop()
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, 2]
    await source.close()


async def test_a_transaction_resumed_in_its_middle_is_neither_torn_nor_repeated(bench: Bench) -> None:
    bench.insert(0)
    source = bench.source()
    await opened(source)
    with bench.client.start_session() as session, session.start_transaction():
        for key in range(1, 6):
            bench.database.orders.insert_one({"_id": key}, session=session)
    events = await read_until(source, last_is(5))
    assert len({cluster_time(event["_id"]["_data"]) for event in events}) == 1
    for reached, event in enumerate(events[:-1], 1):
        await source.open(event["_id"]["_data"])
        assert said(await read_until(source, last_is(5))) == [1, 2, 3, 4, 5][reached:]
    await source.close()


async def test_events_on_both_sides_of_four_kilobytes_are_whole_and_plain_bytes(bench: Bench) -> None:
    source = bench.source()
    await opened(source)
    for key, size in enumerate((10, 3_500, 4_096, 9_000, 300_000), 1):
        bench.orders.insert_one({"_id": key, "text": "x" * size})
    sizes = [len(e["fullDocument"]["text"]) for e in await read_until(source, last_is(5))]
    assert sizes == [10, 3_500, 4_096, 9_000, 300_000]
    await source.close()


async def test_a_killed_server_is_an_outage_and_nothing_is_lost_or_doubled(
    own_mongo: MongoServer, make_bench: MakeBench
) -> None:
    bench = make_bench(own_mongo.uri, batch_size=7)
    source = bench.source()
    position = await opened(source)
    events: list[Event] = []
    outages = 0

    async def read_on(until: int) -> None:
        nonlocal position, outages
        deadline = time.monotonic() + 40
        while not last_is(until)(events):
            assert time.monotonic() < deadline, f"only {said(events)} came"
            try:
                batch = await source.read()
            except TransientError:
                outages += 1
                try:
                    await source.open(position)
                except TransientError:
                    await asyncio.sleep(0.05)
                continue
            events.extend(bson.decode(raw) for raw in batch.events)
            position = batch.position

    bench.insert(*range(20))
    await read_on(19)
    reading = asyncio.create_task(read_on(40), name="reading")
    await asyncio.sleep(0)
    for key in (20, 30):
        own_mongo.kill()
        await own_mongo.start()
        await asyncio.to_thread(bench.insert, *range(key, key + 10))
    await asyncio.to_thread(bench.insert, 40)
    await reading
    assert said(events) == list(range(41))
    assert outages > 0
    await source.close()


async def test_a_frozen_server_is_noticed_long_before_the_socket_timeout(
    own_mongo: MongoServer, make_bench: MakeBench
) -> None:
    source = make_bench(own_mongo.uri).source()
    position = await opened(source)
    await source.read()
    own_mongo.freeze()
    async with asyncio.timeout(SOCKET_SECONDS - 2):
        with pytest.raises(SourceUnavailable):
            await read_until(source, lambda events: False)
    own_mongo.thaw()
    await source.open(position)
    await source.close()


async def test_closing_on_a_frozen_server_returns(own_mongo: MongoServer, make_bench: MakeBench) -> None:
    source = make_bench(own_mongo.uri).source()
    await opened(source)
    await source.read()
    own_mongo.freeze()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(SOCKET_SECONDS - 2):
        await source.close()
    own_mongo.thaw()


async def test_a_server_slower_than_the_socket_timeout_is_waited_for_the_second_time(
    mongo_uri: str, make_bench: MakeBench
) -> None:
    """As when it scans a long oplog: given up each time, it would start over for ever."""
    bench = make_bench(f"{mongo_uri}&socketTimeoutMS=250")  # an empty read takes 500
    source = bench.source()
    position = await opened(source)
    await source.read()
    with pytest.raises(SourceUnavailable):
        await source.read()
    await source.open(position)
    bench.insert(1)
    assert said(await read_until(source, last_is(1))) == [1]
    await source.close()


async def test_a_cancelled_reader_leaves_no_cursor_behind(own_mongo: MongoServer, make_bench: MakeBench) -> None:
    bench = make_bench(own_mongo.uri)

    def cursors() -> int:
        return int(bench.client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])

    source = bench.source()
    await source.prepare()
    position = await source.locate(Start("latest"))
    assert cursors() == 0
    for turns in range(4):  # while opening, and while reading
        opening = asyncio.ensure_future(source.open(position))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait((opening,))
        await source.close()
    await source.open(position)
    await source.read()
    reading = asyncio.ensure_future(source.read())
    await asyncio.sleep(0.05)
    assert cursors() == 1
    reading.cancel()
    await asyncio.wait((reading,))
    await source.close()
    assert cursors() == 0


def outgrow_the_oplog(bench: Bench) -> None:
    """Write until the oplog's first entry is later than now, and stays what it is."""
    filler = bench.database["filler"]
    moment = bench.client.admin.command("hello")["operationTime"]
    deadline = time.monotonic() + 60

    def first() -> bson.Timestamp:
        assert time.monotonic() < deadline, "the oplog kept everything, or comes to no rest"
        entry = bench.client.local["oplog.rs"].find_one({}, sort=[("$natural", 1)])
        assert entry is not None
        return bson.Timestamp(entry["ts"].time, entry["ts"].inc)

    while first() <= moment:
        filler.insert_many([{"text": "x" * 1_000_000} for _ in range(10)])
        filler.drop()
    seen, since = first(), time.monotonic()
    while time.monotonic() < since + 1:
        if (now := first()) != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.01)


async def test_an_oplog_that_moved_on_is_history_lost_with_its_bounds(
    make_mongo: MakeMongo, make_bench: MakeBench
) -> None:
    server = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    bench = make_bench(server.uri)
    source, live = bench.source(), bench.source()
    bench.insert(0)
    begin = await opened(source)
    bench.insert(1)
    (event,) = await read_until(source, last_is(1))
    await opened(live)
    await asyncio.to_thread(outgrow_the_oplog, bench)

    with pytest.raises(HistoryLost):
        await read_until(live, lambda events: False)
    with pytest.raises(HistoryLost) as lost:
        await source.open(event["_id"]["_data"])
    oplog = await bench.deployment.read_oplog()
    assert oplog is not None
    assert oplog.full
    for moment in (cluster_time(begin).seconds, oplog.first):
        assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(moment)) in str(lost.value)
    with pytest.raises(HistoryLost):
        await source.locate(Start("timestamp", float(cluster_time(begin).seconds)))
    with pytest.raises(HistoryLost):
        await source.locate(Start("token", begin))
    with pytest.raises(Invalid, match="oplog"):
        await bench.deployment.check_token(Watcher("w", Source(bench.database.name, "orders")), begin)

    await source.open(await source.locate(Start("earliest")))
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [2]
    await source.close()
    await live.close()


async def test_a_start_in_the_future_is_refused_and_the_oplogs_beginning_is_reached(
    own_mongo: MongoServer, make_bench: MakeBench
) -> None:
    bench = make_bench(own_mongo.uri)
    source = bench.source()
    bench.insert(1, 2)
    await opened(source, Start("earliest"))
    assert said(await read_until(source, last_is(2))) == [1, 2]
    with pytest.raises(TokenRefused):
        await source.locate(Start("timestamp", time.time() + 3600))
    await source.close()


async def test_a_timestamp_delivers_what_was_written_since(bench: Bench) -> None:
    source = bench.source()
    bench.insert(1)
    written = float(await read_one_time(bench))
    await opened(source, Start("timestamp", written))
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, 2]
    await source.close()


async def read_one_time(bench: Bench) -> int:
    """The second of the last write, the server's own."""
    return int(bench.client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"].time)


async def test_a_token_the_changed_options_hide_is_replaced_by_its_time_without_loss_or_repeat(bench: Bench) -> None:
    expanded, plain = bench.source(show_expanded_events=True), bench.source()
    await opened(expanded)
    bench.insert(1)
    bench.orders.create_index("a")
    bench.insert(2)
    events = await read_until(expanded, last_is(2))
    await expanded.close()
    assert said(events) == ["create", 1, "createIndexes", 2]
    hidden = events[2]["_id"]
    with pytest.raises(pymongo.errors.OperationFailure) as refused, bench.orders.watch(start_after=hidden) as stream:
        stream.try_next()
    assert refused.value.code == 280

    await plain.prepare()
    await plain.open(hidden["_data"])
    assert said(await read_until(plain, last_is(2))) == [2]
    await no_more(plain)
    await plain.open(events[0]["_id"]["_data"])
    assert said(await read_until(plain, last_is(2))) == [1, 2]
    await plain.close()


async def test_a_hidden_token_with_nothing_behind_it_yet_does_not_lose_what_follows(bench: Bench) -> None:
    expanded, plain = bench.source(show_expanded_events=True), bench.source()
    await opened(expanded)
    bench.orders.create_index("a")
    hidden = (await read_until(expanded, lambda events: len(events) == 2))[-1]["_id"]["_data"]
    await expanded.close()
    await plain.prepare()
    await plain.open(hidden)
    await plain.read()
    bench.insert(1, 2)
    assert said(await read_until(plain, last_is(2))) == [1, 2]
    await plain.close()


@pytest.mark.parametrize(
    "pipeline",
    [({"$nonsense": 1},), ({"$match": {"$expr": {"$nonsense": 1}}},), ({"$out": "elsewhere"},), ({"$match": 1},)],
)
async def test_a_pipeline_that_mongodb_refuses_is_refused_with_its_words(
    bench: Bench, pipeline: tuple[dict[str, Any], ...]
) -> None:
    good, bad = bench.source(), bench.source(pipeline=pipeline)
    position = await opened(good)
    await bad.prepare()
    with pytest.raises(SourceRefused, match="pipeline"):
        await bad.open(position)
    with pytest.raises(SourceRefused, match="pipeline"):
        await bad.locate(Start("latest"))
    await good.close()


@pytest.mark.parametrize("stage", [{"$project": {"_id": 0}}, {"$set": {"_id._data": "82AB"}}])
async def test_a_pipeline_that_spoils_the_token_is_refused_at_the_first_event(
    bench: Bench, stage: dict[str, Any]
) -> None:
    source = bench.source(pipeline=(stage,))
    await opened(source)
    bench.insert(1)
    with pytest.raises(SourceRefused, match="_id"):
        await read_until(source, lambda events: bool(events))
    await source.close()


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        ({"$replaceWith": {"$cond": ["$fullDocument.plain", "$$ROOT", {"_id": "$_id"}]}}, "operationType"),
        ({"$set": {"operationType": {"$ifNull": ["$fullDocument.operation", "$operationType"]}}}, "operationType"),
        ({"$set": {"clusterTime": {"$ifNull": ["$fullDocument.operation", "$clusterTime"]}}}, "clusterTime"),
        ({"$set": {"ns.coll": {"$ifNull": ["$fullDocument.operation", "$ns.coll"]}}}, "ns"),
        ({"$project": {"documentKey": {"$cond": ["$fullDocument.plain", 1, "$$REMOVE"]}}}, "operationType"),
        ({"$set": {"documentKey": {"$ifNull": ["$fullDocument.operation", "$documentKey"]}}}, "documentKey"),
    ],
)
async def test_a_pipeline_that_spoils_some_events_is_refused_at_the_first_of_them(
    bench: Bench, stage: dict[str, Any], field: str
) -> None:
    source = bench.source(pipeline=(stage,))
    await opened(source)
    if "$set" in stage:
        bench.orders.insert_one({"_id": 1})
        await read_until(source, lambda events: bool(events))
    bench.orders.insert_one({"_id": 2, "operation": "mine"})
    with pytest.raises(SourceRefused, match=f"pipeline of .* the event's {field}, "):
        await read_until(source, lambda events: False)
    await source.close()


async def test_an_expression_that_fails_on_a_document_does_not_quote_it(bench: Bench) -> None:
    source = bench.source(pipeline=({"$set": {"n": {"$toInt": "$fullDocument.name"}}},))
    await opened(source)
    bench.orders.insert_one({"_id": 1, "name": "secret"})
    with pytest.raises(TransientError) as failed:
        await read_until(source, lambda events: bool(events))
    assert "Failed to parse number" in str(failed.value)
    assert "secret" not in str(failed.value)
    await source.close()


@pytest.mark.parametrize("cut", [20, 40, 60])
async def test_a_cut_token_is_refused_and_not_read_from_somewhere(bench: Bench, cut: int) -> None:
    source = bench.source()
    await opened(source)
    bench.insert(1)
    token = (await read_until(source, last_is(1)))[0]["_id"]["_data"]
    with pytest.raises(TokenRefused):
        await source.open(token[:cut])
    with pytest.raises(TokenRefused):
        await source.locate(Start("token", token[:cut]))
    await source.close()


async def test_a_view_and_a_standalone_server_are_refused(
    bench: Bench, make_mongo: MakeMongo, make_bench: MakeBench
) -> None:
    source = bench.source()
    position = await opened(source)
    await source.close()
    bench.database.create_collection("orders", viewOn="other", pipeline=[])
    with pytest.raises(SourceRefused, match="view"):
        await source.open(position)
    standalone = make_bench((await make_mongo(replica_set=None)).uri)
    with pytest.raises(SourceRefused, match=r"rs\.initiate"):
        await standalone.source().prepare()


async def test_an_account_without_the_privilege_is_told_what_to_grant(
    make_mongo: MakeMongo, make_bench: MakeBench
) -> None:
    server = await make_mongo(auth=("root", "root"))
    admin = make_bench(server.uri)
    admin.client.admin.command("createUser", "poor", pwd="poor", roles=[{"role": "read", "db": "elsewhere"}])
    reader_roles = [{"role": "read", "db": admin.database.name}]
    admin.client.admin.command("createUser", "reader", pwd="reader", roles=reader_roles)
    position = await opened(admin.source())

    poor = make_bench(server.uri.replace("root:root", "poor:poor")).source()
    await poor.prepare()
    with pytest.raises(NotAuthorised, match="changeStream"):
        await poor.open(position)
    stranger = make_bench(server.uri.replace("root:root", "poor:wrong")).source()
    with pytest.raises(NotAuthorised, match="MONGO_URI") as refused:
        await stranger.prepare()
    assert "wrong" not in str(refused.value)

    bench = make_bench(server.uri.replace("root:root", "reader:reader"))
    reader = bench.source()
    await opened(reader)
    admin.insert(1)
    assert said(await read_until(reader, last_is(1))) == [1]
    assert await bench.deployment.read_oplog() is None
    with pytest.raises(NotAuthorised, match="local"):
        await reader.locate(Start("earliest"))
    await reader.close()


async def test_images_are_switched_on_for_a_new_and_for_an_old_collection(bench: Bench) -> None:
    source = bench.source(pre_and_post_images=True)
    await opened(source)
    for key in (1, 2):  # the collection that prepare made, then one that was there without images
        bench.orders.insert_one({"_id": key, "n": 1})
        bench.orders.update_one({"_id": key}, {"$set": {"n": 2}})
        events = await read_until(source, lambda events: bool(events) and events[-1]["operationType"] == "update")
        assert events[-1]["fullDocumentBeforeChange"] == {"_id": key, "n": 1}
        assert events[-1]["fullDocument"] == {"_id": key, "n": 2}
        await source.close()
        bench.orders.drop()
        bench.database.create_collection("orders")
        await opened(source)
    await source.prepare()
    await source.close()


async def test_a_missing_required_pre_image_is_permanent(bench: Bench) -> None:
    source = bench.source(full_document_before_change="required")
    await opened(source)
    bench.insert(1)
    bench.orders.delete_one({"_id": 1})
    with pytest.raises(SourceRefused, match="pre-image"):
        await read_until(source, lambda events: len(events) > 1)
    await source.close()


async def test_full_document_left_out_is_the_servers_default(bench: Bench) -> None:
    source = bench.source(full_document=None, full_document_before_change=None)
    await opened(source)
    bench.insert(1)
    bench.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    update = (await read_until(source, lambda events: len(events) == 2))[-1]
    assert "fullDocument" not in update
    assert "fullDocumentBeforeChange" not in update
    await source.close()


def test_a_streams_commands_stay_on_one_mongos_and_move_on_when_it_goes() -> None:
    class Mongos(ServerDescription):
        @property
        def server_type_name(self) -> str:
            return "Mongos"

    many: list[ServerDescription] = [Mongos((f"mongos{n}", 27017)) for n in range(8)]
    assert trial.prefer_pinned(many) == many
    pin = trial.Pin()
    token = trial.pinned.set(pin)
    try:
        chosen = trial.prefer_pinned(many)
        assert len(chosen) == 1
        assert all(trial.prefer_pinned(many) == chosen for _ in range(20))
        rest = [one for one in many if one is not chosen[0]]
        assert trial.prefer_pinned(rest) == rest
    finally:
        trial.pinned.reset(token)
