"""Watchers on a change stream of their database, on a real server: each gets what its collection's own stream has."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio

from app.domain.errors import HistoryLost, SourceRefused
from app.domain.watcher import Source, Start, Watcher
from app.formats import native
from app.mongodb import watcher_stream
from app.mongodb.change_source import MongoChangeSource
from app.mongodb.deployment import MongoDeployment
from app.mongodb.feeds import feed, filters, group, sharing
from app.ports import ChangeSource
from tests import oplog
from tests.conftest import MakeMongo
from tests.fakes import NullObserver
from tests.live import until

Document = dict[str, Any]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_stream, "AWAIT_MS", 50)
    monkeypatch.setattr(watcher_stream, "AWAIT_MOST_MS", 100)
    monkeypatch.setattr(sharing, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(sharing, "QUIET_SECONDS", (0.1, 0.2))
    monkeypatch.setattr(sharing, "AGAIN_SECONDS", 0.2)


class Watched:
    """A deployment whose watchers of one database share, and a client that writes there."""

    def __init__(self, uri: str, database: str, **client: Any) -> None:
        self.client: pymongo.MongoClient[Document] = pymongo.MongoClient(client.pop("write_as", uri))
        self.database = self.client[database]
        self.observer = NullObserver()
        self.deployment = MongoDeployment(
            uri, state_database="changewire", observer=self.observer, split=native.splitter("auto")
        )
        self.sources: dict[str, ChangeSource] = {}
        self.got: dict[str, list[Document]] = {}

    async def open(self, *names: str, after: str | None = None, **options: Any) -> None:
        """Begin to watch these collections, all at the same time."""

        async def one(name: str) -> None:
            watcher = Watcher(name, Source(self.database.name, name, **options))
            source = self.sources[name] = self.deployment.source(watcher)
            await source.prepare()
            await source.open(after or await source.locate(Start("latest")))
            self.got[name] = []

        await asyncio.gather(*(one(name) for name in names))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.gather(*(self._read(name) for name in self.sources))

    async def _read(self, name: str) -> None:
        batch = await self.sources[name].read()
        self.got[name] += [bson.decode(raw) for raw in batch.events]

    async def shared(self) -> None:
        await self.until(lambda: all(source.reads.shared for source in self.sources.values()))

    def keys(self, name: str) -> list[Any]:
        return [event["documentKey"]["_id"] for event in self.got[name] if "documentKey" in event]

    async def close(self) -> None:
        await asyncio.gather(*(source.close() for source in self.sources.values()))
        await self.deployment.end_feeds()
        self.deployment.close()
        self.client.drop_database(self.database.name)
        self.client.close()


@pytest_asyncio.fixture
async def watched(mongo_uri: str, database: str) -> AsyncIterator[Watched]:
    one = Watched(mongo_uri, database)
    yield one
    await one.close()


async def own_events(watched: Watched, name: str, after: str, count: int, **options: Any) -> list[Document]:
    """What the collection's own change stream has after a token, without the invalidates."""
    watcher = Watcher(name, Source(watched.database.name, name, **options))
    source = MongoChangeSource(watcher, watched.deployment.reach)
    await source.prepare()
    await source.open(after)
    events: list[Document] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            events += [bson.decode(raw) for raw in (await source.read()).events]
            events = [event for event in events if event["operationType"] != "invalidate"]
    await source.close()
    return events


def change_everything(database: Any) -> None:
    """Create, write, index, rename, drop, over and into one another."""
    for name in "abz":
        database[name].insert_one({"_id": 1})
    database.a.update_one({"_id": 1}, {"$set": {"n": 1}})
    database.a.create_index("k")
    database.b.rename("c")
    database.c.insert_one({"_id": 2})
    database.z.rename("b")
    database.b.insert_one({"_id": 3})
    database.a.drop()
    database.a.insert_one({"_id": 4})
    database.c.rename("a", dropTarget=True)
    with database.client.start_session() as session, session.start_transaction():
        database.a.insert_one({"_id": 5}, session=session)
        database.b.insert_one({"_id": 5}, session=session)
        database.a.delete_one({"_id": 5}, session=session)
    database.a.insert_one({"_id": "end"})
    database.b.insert_one({"_id": "end"})
    database.c.insert_one({"_id": "end"})


@pytest.mark.parametrize("expanded", [False, True])
async def test_each_gets_what_its_own_stream_has_whatever_is_done_to_the_collections(
    watched: Watched, expanded: bool
) -> None:
    options: Document = {"show_expanded_events": expanded}
    start = await MongoChangeSource(Watcher("s", Source(watched.database.name, "a")), watched.deployment.reach).locate(
        Start("latest")
    )
    await watched.open("a", "b", "c", after=start, **options)
    await watched.shared()
    change_everything(watched.database)
    await watched.until(lambda: all("end" in watched.keys(name) for name in "abc"))
    assert all(source.reads.shared for source in watched.sources.values())
    for name in "abc":
        assert watched.got[name] == await own_events(watched, name, start, len(watched.got[name]), **options)


async def test_a_dropped_database_is_read_on_after_by_everybody(watched: Watched) -> None:
    await watched.open("a", "b")
    await watched.shared()
    watched.database.a.insert_one({"_id": 1})
    await watched.until(lambda: watched.keys("a") == [1])
    watched.client.drop_database(watched.database.name)
    for name in "ab":
        watched.database[name].insert_one({"_id": 2})
    await watched.until(lambda: (watched.keys("a"), watched.keys("b")) == ([1, 2], [2]))
    # And from the position that each has by then, a stream of its own reads on.
    batches = {name: await source.read() for name, source in watched.sources.items()}
    for name, batch in batches.items():
        watched.database[name].insert_one({"_id": 3})
        (event,) = await own_events(watched, name, batch.position, 1)
        assert event["documentKey"] == {"_id": 3}


async def test_a_dropped_database_that_a_filter_hides_leaves_positions_that_an_own_stream_begins_at(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "LEAST", 50)
    await watched.open("a", "b")
    await watched.shared()
    watched.database.noise.insert_many([{"_id": key} for key in range(200)])
    watched.database.a.insert_one({"_id": 1})
    await watched.until(lambda: watched.keys("a") == [1])
    watched.client.drop_database(watched.database.name)
    positions = {(await watched.sources["a"].read()).position for _ in range(8)}
    watched.database.a.insert_one({"_id": 2})
    for position in positions:
        last = (await own_events(watched, "a", position, 1))[-1]
        assert last["operationType"] in ("drop", "insert")


async def test_a_position_after_a_collections_invalidate_is_one_that_a_feed_begins_at(watched: Watched) -> None:
    await watched.open("a")
    watched.database.a.insert_one({"_id": 1})
    watched.database.a.drop()
    await watched.until(lambda: [event["operationType"] for event in watched.got["a"]][-1:] == ["invalidate"])
    position = watched.got["a"][-1]["_id"]["_data"]
    await watched.sources.pop("a").close()
    for name in "ab":
        watched.database[name].insert_one({"_id": 2})
    await watched.open("a", "b", after=position)
    await watched.until(lambda: watched.keys("a") == watched.keys("b") == [2])
    assert watched.sources["a"].reads.shared


async def test_a_filter_lets_through_what_concerns_a_watched_collection(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "LEAST", 50)
    await watched.open("a", "b")
    await watched.shared()
    watched.database.noise.insert_many([{"_id": key} for key in range(200)])
    watched.database.a.insert_one({"_id": 1})
    await watched.until(lambda: watched.keys("a") == [1])

    def filtered() -> bool:
        cursors = [each for each in watched.client.admin.aggregate([{"$currentOp": {"idleCursors": True}}])
                   if each.get("cursor", {}).get("originatingCommand", {}).get("aggregate") == 1]  # fmt: skip
        stages = [stage for each in cursors if each["ns"].startswith(watched.database.name)
                  for stage in each["cursor"]["originatingCommand"]["pipeline"]]  # fmt: skip
        return any("$match" in stage for stage in stages)

    await until(filtered)  # the feed opens again with it
    watched.database.noise.rename("b")
    watched.database.b.insert_one({"_id": "b"})
    watched.client.drop_database(watched.database.name)
    watched.database.a.insert_one({"_id": 2})
    await watched.until(lambda: watched.keys("a") == [1, 2])
    assert [event["operationType"] for event in watched.got["b"]] == ["rename", "insert", "drop"]
    watched.database.c.insert_one({"_id": 1})
    await watched.open("c")
    watched.database.c.insert_one({"_id": 2})
    await watched.until(lambda: watched.keys("c") == [2])
    await watched.shared()


async def test_a_large_event_reaches_its_watcher_and_the_others_go_on(watched: Watched) -> None:
    watched.database.create_collection("a", changeStreamPreAndPostImages={"enabled": True})
    watched.database.a.insert_one({"_id": 1, "text": "x" * 9_000_000})
    await watched.open("a", "b", full_document_before_change="whenAvailable")
    await watched.shared()
    watched.database.b.insert_one({"_id": 1})
    watched.database.a.update_one({"_id": 1}, {"$set": {"text": "y" * 9_000_000}})
    watched.database.b.insert_one({"_id": 2})
    await watched.until(lambda: watched.keys("b") == [1, 2] and watched.keys("a") == [1])
    assert all(source.reads.shared for source in watched.sources.values())


async def test_an_account_that_may_watch_the_collections_alone_reads_them_one_by_one(
    make_mongo: MakeMongo, database: str
) -> None:
    server = await make_mongo(auth=("root", "secret"))
    with pymongo.MongoClient[Document](server.uri) as client:
        actions = ["find", "changeStream"]
        privileges = [{"resource": {"db": database, "collection": name}, "actions": actions} for name in "ab"]
        client.admin.command("createRole", "few", privileges=privileges, roles=[])
        client.admin.command("createUser", "few", pwd="few", roles=["few"])
    uri = server.uri.replace("root:secret", "few:few")
    one = Watched(uri, database, write_as=server.uri)
    await one.open("a", "b")
    for name in "ab":
        one.database[name].insert_one({"_id": 1})
    await one.until(lambda: one.keys("a") == one.keys("b") == [1])
    why = one.sources["a"].reads.why
    assert why is not None
    assert "grant it find and changeStream on" in why
    assert sum(one.deployment.reach.reading.values()) == 0, "a feed that was refused is no open change stream"
    await one.close()


async def test_a_feed_that_the_oplog_has_overtaken_leaves_each_to_its_own_error(
    make_mongo: MakeMongo, database: str
) -> None:
    server = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    one = Watched(server.uri, database)
    await one.open("a", "b")
    await one.shared()
    positions = {name: (await source.read()).position for name, source in one.sources.items()}
    for source in one.sources.values():
        await source.close()

    def overtaken() -> bool:
        one.database.noise.insert_many([{"text": "x" * 100_000} for _ in range(100)])
        return int(positions["a"][2:10], 16) < oplog.first(one.client).time

    async with asyncio.timeout(60):
        while not await asyncio.to_thread(overtaken):
            pass
    sources = [one.deployment.source(Watcher(name, Source(database, name))) for name in "ab"]
    for source in sources:
        await source.prepare()
    opened = await asyncio.gather(
        *(source.open(position) for source, position in zip(sources, positions.values(), strict=True)),
        return_exceptions=True,
    )
    assert [type(error) for error in opened] == [HistoryLost, HistoryLost]
    await one.close()


async def test_no_cursor_is_left_on_the_server_when_the_feeds_have_ended(watched: Watched) -> None:
    def cursors() -> int:
        return int(watched.client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])

    await watched.open("a", "b", "c")
    await watched.shared()
    assert cursors() >= 1
    for source in watched.sources.values():
        await source.close()
    await watched.deployment.end_feeds()
    mine = [each for each in watched.client.admin.aggregate([{"$currentOp": {"idleCursors": True}}])
            if each.get("ns", "").startswith(watched.database.name)]  # fmt: skip
    assert mine == []


async def test_the_second_watcher_brings_both_over_and_the_first_goes_back_alone(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "LINGER_SECONDS", 0.2)
    await watched.open("a")
    assert not watched.sources["a"].reads.shared
    await watched.open("b")
    for key in range(20):
        watched.database.a.insert_one({"_id": key})
    await watched.shared()
    await watched.sources.pop("b").close()
    await watched.until(lambda: not watched.sources["a"].reads.shared)
    for key in range(20, 40):
        watched.database.a.insert_one({"_id": key})
    await watched.until(lambda: len(watched.keys("a")) == 40)
    assert watched.keys("a") == list(range(40))


async def test_the_metrics_count_the_change_streams_that_are_open(watched: Watched) -> None:
    def observed() -> tuple[dict[str, int], dict[str, int]]:
        watched.deployment.observe_streams()
        return watched.observer.streams, watched.observer.members

    assert observed() == ({"shared": 0, "own": 0}, {})
    await watched.open("a", "b", "c")
    await watched.open("d", pipeline=({"$match": {"fullDocument.x": 1}},))
    await watched.until(lambda: all(watched.sources[name].reads.shared for name in "abc"))
    await watched.until(lambda: observed() == ({"shared": 1, "own": 1}, {watched.database.name: 3}))
    for source in watched.sources.values():
        await source.close()
    await watched.deployment.end_feeds()
    assert observed() == ({"shared": 0, "own": 0}, {})


AS_VIEWS: list[Document] = [{"viewOn": "b"}, {"timeseries": {"timeField": "at"}}]


@pytest.mark.parametrize("options", AS_VIEWS, ids=["view", "time series"])
async def test_a_collection_that_becomes_a_view_while_it_is_read_ends_its_watcher_alone(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, options: Document
) -> None:
    monkeypatch.setattr(group, "VIEWS_SECONDS", 0.2)
    await watched.open("a", "b", "c")
    await watched.shared()
    watched.database.a.insert_one({"_id": 1})
    watched.database.a.drop()
    watched.database.create_collection("a", **options)
    with pytest.raises(SourceRefused, match="view"):
        await watched.until(lambda: False)
    assert [event["operationType"] for event in watched.got["a"]] == ["insert", "drop"]
    refused = watched.sources.pop("a")
    assert refused.reads.why == feed.VIEW
    await refused.close()
    for name in "bc":
        watched.database[name].insert_one({"_id": 2})
    await watched.until(lambda: all(watched.keys(name) == [2] for name in "bc"))
    assert all(source.reads.shared for source in watched.sources.values())
    with pytest.raises(SourceRefused, match="view"):
        await watched.open("a")  # nor does it come back
    watched.database.a.drop()
    await watched.open("a")
    watched.database.a.insert_one({"_id": 3})
    await watched.until(lambda: watched.keys("a") == [3])


async def test_many_watchers_that_open_at_once_ask_a_few_times_which_collections_are_views(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    commands = {"listCollections"}
    monkeypatch.setattr(
        watched.observer, "command_started", lambda _, name: asked.append(name) if name in commands else None
    )
    start = await MongoChangeSource(Watcher("s", Source(watched.database.name, "a")), watched.deployment.reach).locate(
        Start("latest")
    )
    names = [f"c{number}" for number in range(400)]
    await watched.open(*names[:200], after=start)
    assert len(asked) == 1, "they are gathered"
    await watched.open(*names[200:], after=start)
    assert len(asked) <= 12, "a feed is there, and each asks as it comes"
