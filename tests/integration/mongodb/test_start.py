"""Where a start leads on a real mongod, and what it is told that cannot be reached or may not be read."""

import asyncio
import time

import bson
import pytest

from app.devservers.servers import MongoServer
from app.domain.errors import (
    HistoryLost,
    Invalid,
    NotAuthorised,
    SourceRefused,
    TokenRefused,
)
from app.domain.tokens import cluster_time
from app.domain.watcher import Source, Start, Watcher
from tests import oplog
from tests.integration.mongodb.bench import (
    Bench,
    MakeBench,
    MakeMongo,
    last_is,
    opened,
    read_until,
    said,
)


def outgrow_the_oplog(bench: Bench) -> None:
    """Write until the oplog's first entry is later than now, and stays what it is."""
    filler = bench.database["filler"]
    moment = bench.client.admin.command("hello")["operationTime"]
    deadline = time.monotonic() + 60

    def first() -> bson.Timestamp:
        assert time.monotonic() < deadline, "the oplog kept everything, or comes to no rest"
        return oplog.first(bench.client)

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
    with bench.client.start_session() as session:
        bench.orders.insert_one({"_id": 1}, session=session)
        written = session.operation_time
    assert written is not None
    await opened(source, Start("timestamp", float(written.time)))
    bench.insert(2)
    assert said(await read_until(source, last_is(2))) == [1, 2]
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
