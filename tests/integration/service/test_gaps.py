"""The oplog has moved on, or the stream was recreated: what is on the stream then, for each wish.

It is exactly: what was there, one marker, and every change from the position that the marker names on, once, in order.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.devservers.servers import MongoServer
from tests import oplog
from tests.conftest import MakeMongo
from tests.live import Live, Message, until
from tests.service import Stage, Trap, assert_same, staged
from tests.slow_snapshots import slowed

WISHES = pytest.mark.parametrize("wish", ["fail", "latest", "earliest"])


@pytest_asyncio.fixture
async def small(make_mongo: MakeMongo) -> MongoServer:
    """A server whose oplog is overtaken by a moment of writing."""
    return await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])


def iso(moment: dict[str, Any]) -> str:
    """A marker's bound as the status writes it."""
    seconds = moment["clusterTime"]["$timestamp"]["t"]
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


async def seen_with_its_gap(live: Live, reason: str, *expected: str) -> Message:
    """Wait for these messages; the one gap's marker among them says what it has to, and so do status and log."""
    found = await live.seen(*expected)
    (at,) = [index for index, message in enumerate(found) if message.body["operationType"] == "gap"]
    marker, before = found[at], found[:at]
    body = marker.body
    assert list(body) == ["operationType", "ns", "from", "to", "reason"]
    assert body["ns"] == {"db": live.database, "coll": live.collection}
    assert (body["reason"], marker.headers["Changewire-Gap"]) == (reason, reason)
    assert marker.subject == f"{live.stream}.gap"
    assert marker.id.partition(":")[0] == body["to"]["token"]
    assert marker.id.endswith(":r:gap")
    assert all(message.token <= body["from"]["token"] for message in before)
    assert all(message.token > body["to"]["token"] for message in found[at + 1 :])
    status = (await live.get("/watchers/orders"))["status"]
    (note,) = [note for note in status["notes"] if "gap" in note]
    logged = [json.loads(line) for line in live.log.getvalue().splitlines() if '"gap_marked"' in line]
    assert len(logged) == 1
    for bound, name in (("from", "after"), ("to", "until")):
        assert iso(body[bound]) in note
        assert logged[0][name] == iso(body[bound])
    return marker


async def goes_on_or_is_failed(live: Live, wish: str, start: Callable[[], Any]) -> dict[str, Any]:
    await start()
    return await live.reaches("FAILED" if wish == "fail" else "RUNNING")


@pytest.mark.long
@WISHES
@pytest.mark.parametrize("how", ["paused", "down"])
async def test_an_oplog_that_moved_on_while_nobody_read(
    small: MongoServer, nats_url: str, unique: str, wish: str, how: str
) -> None:
    async with Live(small.uri, nats_url, unique) as live:
        await live.add(on_history_lost=wish)
        live.insert(1)
        (first,) = await live.seen("1")
        await (live.pause() if how == "paused" else live.stop())
        live.insert("lost")
        await asyncio.to_thread(oplog.outgrow, small.uri)
        live.insert("left")

        async def start() -> None:
            await (live.call("PUT", "/watchers/orders/resume", 202) if how == "paused" else live.start())

        watcher = await goes_on_or_is_failed(live, wish, start)
        if wish == "fail":
            await live.seen("1")
            reason = watcher["status"]["reason"]
            begins = oplog.first(live.mongo)
            assert time.strftime("it begins at %Y-%m-%dT%H:%M", time.gmtime(begins.time)) in reason
            assert watcher["status"]["last_error"]["type"] == "HistoryLost"
            # Anyone who reads that may choose otherwise.
            await live.put(on_history_lost="earliest")
        expected = ["1", "gap None", *(["left"] if wish != "latest" else [])]
        await live.seen(*expected)
        live.insert("new")
        marker = await seen_with_its_gap(live, "history_lost", *expected, "new")
        assert marker.body["from"]["token"] >= first.token

        async def stored() -> bool:
            (one,) = live.checkpoint()
            return bool(one["sequence"] == marker.sequence + len(expected) - 1)

        await until(stored)
        await live.restart()
        await live.reaches("RUNNING")
        live.insert("newer")
        await live.seen(*expected, "new", "newer")


@WISHES
@pytest.mark.parametrize("service", ["restarted", "stays up"])
async def test_a_stream_that_was_deleted_and_recreated(
    mongo_uri: str, nats_url: str, unique: str, wish: str, service: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add(on_history_lost=wish)
        live.insert(1, 2)
        await live.seen("1", "2")
        if service == "restarted":
            await live.stop()
        await live.streams.api(f"STREAM.DELETE.{live.stream}")
        await live.streams.create(live.stream)
        live.insert(3)
        if service == "restarted":
            await live.start()
        if wish == "fail":
            watcher = await live.reaches("FAILED")
            assert "recreated" in watcher["status"]["reason"]
            assert not await live.messages()
            return
        expected = ["gap None", *(["1", "2", "3"] if wish == "earliest" else [])]
        await live.seen(*expected)
        await live.reaches("RUNNING")
        live.insert(4)
        messages = await live.seen(*expected, "4")
        assert messages[0].body["reason"] == messages[0].headers["Changewire-Gap"] == "stream_recreated"
        assert {message.id.split(":")[1] for message in messages} == {"1"}
        await live.restart()
        await live.reaches("RUNNING")
        live.insert(5)
        await live.seen(*expected, "4", "5")


async def test_a_snapshot_with_rows_before_a_gap_is_cancelled_and_a_new_one_is_complete(
    small: MongoServer, nats_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one would say that it is complete, though changes of its documents are missing."""
    hurry = slowed(monkeypatch)
    async with Live(small.uri, nats_url, unique) as live:
        live.orders.insert_many([{"_id": number, "text": "x" * 20_000} for number in range(3000)])
        await live.add(on_history_lost="latest")
        await live.call("POST", "/watchers/orders/snapshot", 202)

        async def snapshot() -> dict[str, Any]:
            return dict((await live.get("/watchers/orders/status"))["snapshot"])

        async def under_way() -> bool:
            return (await snapshot())["documents"] > 0

        await until(under_way)
        await live.stop()
        live.orders.update_one({"_id": 0}, {"$set": {"text": "lost"}})
        await asyncio.to_thread(oplog.outgrow, small.uri)
        await live.start()
        await live.reaches("RUNNING")
        first = await snapshot()
        assert first["state"] == "cancelled", first
        assert "gap" in first["reason"]

        async def begins() -> bool:  # once the position is stored behind the first one's rows
            return (await live.call("POST", "/watchers/orders/snapshot")).status_code == 202

        await until(begins)
        hurry.set()

        async def complete() -> bool:
            return (await snapshot())["state"] == "done"

        await until(complete, seconds=60)
        operations = [message.body["operationType"] for message in await live.messages()]
        at = operations.index("gap")
        assert set(operations[:at]) == {"snapshot"}
        assert operations[at + 1 :] == ["snapshot"] * 3000 + ["snapshot_done"]


# Killed while the gap is being marked.


@pytest_asyncio.fixture
async def stage(small: MongoServer, nats_url: str, tmp_path: Path, unique: str) -> AsyncIterator[Stage]:
    async with staged(small.uri, nats_url, tmp_path, unique) as stage:
        yield stage


@pytest.mark.parametrize(
    ("moment", "wish"),
    [
        ("before-publish", "latest"),
        ("before-read-back", "earliest"),
        ("after-publish", "latest"),
        ("after-publish", "earliest"),
        ("before-checkpoint", "latest"),
    ],
)
async def test_killed_around_publishing_the_marker(stage: Stage, small: MongoServer, moment: str, wish: str) -> None:
    service = await stage.service().start()
    await until(lambda: stage.takes(service))
    await service.call("POST", "/watchers", {**stage.described(), "on_history_lost": wish}, status=201)
    await service.until_state(stage.watcher, "RUNNING")
    await stage.write(50)
    await stage.until_length(50)
    assert await service.terminate() == 0
    before = list(stage.written)
    await stage.write(50)
    await asyncio.to_thread(oplog.outgrow, small.uri)
    del stage.written[len(before) :]
    await stage.write(50)
    if wish == "latest":
        del stage.written[len(before) :]
    service.trap = Trap(moment)
    service.spawn()
    await service.trapped()
    there = await stage.messages()
    marked = [message for message in there if message.subject.endswith(".gap")]
    assert len(marked) == (0 if moment == "before-publish" else 1)
    assert len(there) == len(before) + len(marked)
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    await stage.write(50)
    await stage.until_length(len(stage.written) + 1)
    assert await service.terminate() == 0
    messages = await stage.messages()
    markers = [index for index, message in enumerate(messages) if message.subject.endswith(".gap")]
    assert markers == [len(before)]
    assert marked in ([], [messages[len(before)]])
    assert_same(stage.written, [message.change for message in messages if not message.subject.endswith(".gap")])
